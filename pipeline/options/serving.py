"""A page to talk to the model, and Ray. Gradio keys are for inference; no stage reads them."""

from __future__ import annotations

from typing import Any

from pipeline.options.schema import LARGEST, Group, not_yet, option

_GRADIO = (("*", "gradio", "gradio"),)


class ChatPage(Group):
    """Read by `regrow chat --gradio`; none of it changes an artifact."""

    gradio_title: str = option("regrow chat", "Title of the page of `regrow chat --gradio`.", execution=True)
    gradio_share: bool = option(
        False, "Make the page public, through Gradio's servers.", extras=(("True", "gradio", "gradio"),), execution=True
    )
    gradio_server_name: str = option("127.0.0.1", "Host to listen on; 0.0.0.0 is all of this computer's.", execution=True)
    gradio_server_port: int | None = option(
        None, "Port to listen on; default the first free one from 7860.", extras=_GRADIO, execution=True, ge=1, le=65535
    )
    gradio_max_new_tokens: int = option(1024, "Longest answer, in tokens.", execution=True, ge=1, le=LARGEST)
    gradio_temperature: float = option(0.0, "Sampling temperature; 0 takes the likeliest token.", execution=True, ge=0)


class Ray(Group):
    """Training on a Ray cluster. Read by train."""

    use_ray: bool = not_yet("Train on a Ray cluster.", False, needs="ray", execution=True)
    ray_run_name: str | None = not_yet("Name of the run.", needs="ray", execution=True, idle=("",))
    ray_num_workers: int = not_yet("Number of workers.", 1, needs="ray", execution=True, idle=(), ge=1)
    resources_per_worker: dict[str, Any] | None = not_yet(
        "What each worker gets; default one GPU.", needs="ray", execution=True, idle=({},)
    )

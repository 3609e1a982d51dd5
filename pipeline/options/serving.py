"""A page to talk to the model, and Ray. Gradio keys are for inference; no stage reads them."""

from __future__ import annotations

from typing import Any

from pipeline.options.schema import Group, not_yet


class ChatPage(Group):
    """A Gradio page; none of it changes an artifact."""

    gradio_title: str | None = not_yet("Title of the page.", needs="gradio", execution=True, idle=("",))
    gradio_share: bool | None = not_yet("Make the page public.", needs="gradio", execution=True)
    gradio_server_name: str | None = not_yet("Host to listen on.", needs="gradio", execution=True, idle=("",))
    gradio_server_port: int | None = not_yet("Port to listen on.", needs="gradio", execution=True, idle=(), ge=1, le=65535)
    gradio_max_new_tokens: int | None = not_yet("Longest answer.", needs="gradio", execution=True, idle=(), ge=1)
    gradio_temperature: float | None = not_yet("Sampling temperature.", needs="gradio", execution=True, idle=(), ge=0)


class Ray(Group):
    """Training on a Ray cluster. Read by train."""

    use_ray: bool = not_yet("Train on a Ray cluster.", False, needs="ray", execution=True)
    ray_run_name: str | None = not_yet("Name of the run.", needs="ray", execution=True, idle=("",))
    ray_num_workers: int = not_yet("Number of workers.", 1, needs="ray", execution=True, idle=(), ge=1)
    resources_per_worker: dict[str, Any] | None = not_yet(
        "What each worker gets; default one GPU.", needs="ray", execution=True, idle=({},)
    )

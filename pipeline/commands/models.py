"""Using what was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def chat(
    model: Annotated[Path | None, typer.Option(help="A model's folder, or a GGUF file; default data/merged.", show_default=False)] = None,
    adapter: Annotated[bool, typer.Option("--adapter", help="data/base with the adapter of data/trained, not merged.")] = False,
    gguf: Annotated[bool, typer.Option("--gguf", help="The GGUF file of data/quantized.")] = False,
    system: Annotated[str | None, typer.Option(help="A system prompt for every conversation.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer; default 512.", show_default=False)] = None,
    temperature: Annotated[float | None, typer.Option(min=0, help="0, the default, takes the likeliest token.", show_default=False)] = None,
    seed: Annotated[int, typer.Option(help="Of what is drawn at a temperature.")] = 42,
    gradio: Annotated[bool, typer.Option("--gradio", help="On a page of this computer, with the gradio_* options.")] = False,
) -> None:
    """Talk to a model that the pipeline made, with the chat template it was trained with."""
    from pipeline.chat.conversation import Conversation, Sampling
    from pipeline.chat.opened import open_chat_model
    from pipeline.chat.page import page_sampling, require_gradio, serve
    from pipeline.chat.terminal import talk
    from pipeline.options.recipe import load_recipe
    from pipeline.project import find_project

    project = find_project()
    if gradio:
        require_gradio()
    page = load_recipe(project.params).options if gradio else None
    sampling = Sampling(seed=seed) if page is None else page_sampling(page, seed)
    sampling = sampling.changed(max_new_tokens=max_new_tokens, temperature=temperature)
    conversation = Conversation(*open_chat_model(project.data, model, adapter=adapter, gguf=gguf), sampling)
    if page is None:
        talk(conversation, system, lambda: input("> "), lambda piece: typer.echo(piece, nl=False))
    else:
        serve(conversation, system, page)


def vllm_serve() -> None:
    """Start a vLLM server on data/base with the options of `vllm:`, for GRPO with `trl.vllm_mode: server`. Needs a CUDA GPU."""
    from pipeline.options.online import VllmServer
    from pipeline.options.recipe import load_recipe
    from pipeline.project import find_project
    from pipeline.vllm_server import serve

    project = find_project()
    serve(project, load_recipe(project.params).options.vllm or VllmServer())

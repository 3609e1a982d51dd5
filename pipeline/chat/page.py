"""The conversation on a page of this computer, by Gradio."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from pipeline.chat.conversation import Conversation, Sampling
from pipeline.errors import MissingExtra
from pipeline.options.serving import ChatPage


def require_gradio() -> None:
    """Refuse before a model is opened.

    Raises:
        MissingExtra: the package is not installed.
    """
    if find_spec("gradio") is None:
        raise MissingExtra("regrow chat --gradio", "gradio", "gradio")


def page_sampling(options: ChatPage, seed: int) -> Sampling:
    """As the `gradio_*` options have it."""
    return Sampling(options.gradio_max_new_tokens, options.gradio_temperature, seed)


def serve(conversation: Conversation, system: str | None, options: ChatPage) -> None:
    """Serve the page until it is stopped."""

    import gradio

    def respond(message: Any, history: Sequence[Mapping[str, Any]]) -> Iterator[str]:
        turns = [{"role": turn["role"], "content": _text(turn["content"])} for turn in history]
        beginning = [] if system is None else [{"role": "system", "content": system}]
        told = ""
        for piece in conversation.reply([*beginning, *turns, {"role": "user", "content": _text(message)}]):
            told += piece
            yield told

    interface = gradio.ChatInterface(respond, title=options.gradio_title)
    interface.launch(share=options.gradio_share, server_name=options.gradio_server_name, server_port=options.gradio_server_port)


def _text(content: Any) -> str:
    """Gradio 6 gives a turn's content as a list of parts, older ones as text."""
    if isinstance(content, str):
        return content
    return "".join(part if isinstance(part, str) else str(part.get("text", "")) for part in content)

"""The conversation in a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pipeline.chat.conversation import Conversation
from pipeline.errors import RegrowError

HELP = "/new begins a new conversation, /exit ends. Ctrl+C stops an answer."


def talk(conversation: Conversation, system: str | None, read: Callable[[], str], write: Callable[[str], None]) -> None:
    """Until there is nothing more to ``read`` (EOFError, or ``/exit``). What is written has its line ends in it."""
    beginning = [] if system is None else [{"role": "system", "content": system}]
    messages = list(beginning)
    write(f"{HELP}\n")
    for line in _lines(read):
        if line == "/exit":
            return
        if line == "/new":
            messages = list(beginning)
            continue
        asked = [*messages, {"role": "user", "content": line}]
        try:
            answer = _tell(conversation.reply(asked), write)
        except RegrowError as error:
            write(f"{error}\n")
            continue
        messages = [*asked, {"role": "assistant", "content": answer}]


def _lines(read: Callable[[], str]) -> Iterator[str]:
    while True:
        try:
            line = read().strip()
        except (EOFError, KeyboardInterrupt):
            return
        if line:
            yield line


def _tell(pieces: Iterator[str], write: Callable[[str], None]) -> str:
    """Write the pieces; all of them, or those until the user stopped it."""
    told = ""
    try:
        for piece in pieces:
            write(piece)
            told += piece
    except KeyboardInterrupt:
        write(" …")
    write("\n")
    return told

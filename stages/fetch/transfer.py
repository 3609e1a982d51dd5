"""One file from elsewhere: in parts that are kept, tried again, and checked for their size and digest."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

from pipeline.digest import digest_file
from pipeline.errors import RegrowError
from pipeline.progress import Progress

T = TypeVar("T")

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
"""Seconds before a second try, and the most before any further one; each wait is twice the one before."""


class Interruption(Exception):
    """The other side stopped answering, and may answer again."""


@dataclass(frozen=True)
class Answer:
    """What the other side sends.

    Attributes:
        start: where in the file it begins: the offset that was asked for, or 0.
        total: size of the whole file in bytes, when it is told.
        version: changes when the file does (an ETag), when it is told.
        chunks: the bytes, until the end.
    """

    start: int
    total: int | None
    version: str | None
    chunks: Iterator[bytes]


Ask = Callable[[int, str | None], AbstractContextManager[Answer]]
"""Ask for a file from an offset on, if its version is still this one; otherwise from its beginning."""


@dataclass(frozen=True)
class Transfers:
    """How often something is tried again after the other side stopped answering, and who is told.

    Attributes:
        retries: tries after the first one.
    """

    progress: Progress
    retries: int

    def again(self, action: Callable[[], T], what: str, remedy: str) -> T:
        """Do something, and once more after each wait as long as it is interrupted.

        Raises:
            RegrowError: it was interrupted every time.
        """
        for number in range(self.retries):
            try:
                return action()
            except Interruption as reason:
                wait = min(FIRST_WAIT * 2**number, LONGEST_WAIT)
                self.progress.say(f"{what}: {reason}; trying again in {wait:g} s.")
                time.sleep(wait)
        try:
            return action()
        except Interruption as reason:
            raise RegrowError(f"{what} cannot be had: {reason}", remedy) from None

    def receive(self, ask: Ask, target: Path, what: str) -> None:
        """Bring a file to ``target``. What a killed or failed run received is kept beside it and continued where that is possible.

        Raises:
            RegrowError: it does not arrive.
        """
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            remedy = "Check the network, and run it again: what has arrived is kept. fetch.retries says how often it is tried."
            self.again(lambda: _receive_once(ask, target, what, self.progress), what, remedy)


def _receive_once(ask: Ask, target: Path, what: str, progress: Progress) -> None:
    part, version_file = target.with_name(target.name + ".part"), target.with_name(target.name + ".version")
    version = version_file.read_text(encoding="utf-8") if version_file.exists() else None
    have = part.stat().st_size if version is not None and part.exists() else 0
    with ask(have, version) as answer, part.open("r+b" if answer.start else "wb") as copy:
        copy.seek(answer.start)
        copy.truncate()
        _note(version_file, answer.version)  # after the old version's bytes are gone: a kill between must not leave them under its name
        with progress.task(what, total=answer.total, unit="bytes") as task:
            task.advance(answer.start)
            for chunk in answer.chunks:
                _write(copy, chunk, what)
                task.advance(len(chunk))
        size = copy.tell()
    if answer.total is not None and size < answer.total:
        raise Interruption(f"the connection ended after {size} of {answer.total} bytes")
    if answer.total is not None and size > answer.total:
        part.unlink()
        raise Interruption(f"{size} bytes came, and {answer.total} were announced")
    version_file.unlink(missing_ok=True)
    part.rename(target)


def _write(copy: BinaryIO, chunk: bytes, what: str) -> None:
    """A full disk is no broken connection."""
    try:
        copy.write(chunk)
    except OSError as error:
        raise RegrowError(f"{what} cannot be kept: {error.strerror}.", "Make room on this disk.") from None


def _note(version_file: Path, version: str | None) -> None:
    """Without a version, what is there could be of another file: it is not continued."""
    if version is None:
        version_file.unlink(missing_ok=True)
    else:
        version_file.write_text(version, encoding="utf-8")


def check_pin(path: Path, sha256: str | None, option: str, text: str, say: Callable[[str], None]) -> None:
    """Compare a file with the digest that its source states, or say which one it has.

    Raises:
        RegrowError: it is another; the file is removed, so that it is not taken for the right one later.
    """
    digest = digest_file(path)
    if sha256 is None:
        say(f"{option}: {text} is not pinned: {path.stat().st_size} bytes, and later changes go unnoticed. Add #sha256={digest} to pin it.")
    elif digest != sha256:
        path.unlink()
        raise RegrowError(
            f"{option}: {text.partition('#')[0]} has SHA-256 {digest}, and not {sha256} as stated.",
            "The file there is not the one that was pinned. If you trust it, write its digest after #sha256=.",
        )

"""The command `regrow` in this process, with streams as a terminal in UTF-8 has them."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

from pipeline.cli import main
from pipeline.errors import RegrowError


def regrow(*arguments: str) -> str:
    """What the command prints.

    Raises:
        RegrowError: it exits with 2; the message is what it printed.
        AssertionError: it exits with something else, or prints a traceback.
    """
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", errors) for errors in ("strict", "backslashreplace"))
    code: object = 0
    with _arguments(*arguments), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as left:
            code = left.code
    printed, said = (_content(stream) for stream in (out, err))
    assert "Traceback" not in printed + said, said
    if code in (0, None):
        return printed
    assert code == 2 and said.strip(), (code, said)
    raise RegrowError(said)


def _content(stream: io.TextIOWrapper) -> str:
    stream.flush()
    assert isinstance(stream.buffer, io.BytesIO)
    return stream.buffer.getvalue().decode("utf-8")


@contextmanager
def _arguments(*arguments: str) -> Iterator[None]:
    before = sys.argv
    sys.argv = ["regrow", *arguments]
    try:
        yield
    finally:
        sys.argv = before

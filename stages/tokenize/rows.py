"""Rows of a source file, in order, each with its number. A row that cannot be read is a value, not an exception."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import RegrowError
from stages.tokenize.example import BadRow, Row

NumberedRow = tuple[int, Row | BadRow]


_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


def read_rows(path: Path, kind: str, label: str) -> Iterator[NumberedRow]:
    """Rows of a JSON Lines file (one object per line; blank lines are no rows) or a JSON array of objects.

    ``kind`` is ``jsonl`` or ``json``; a ``json`` file that does not begin with ``[`` is read as JSON Lines. A row's
    number is its position from 0: the line for JSON Lines, the index for an array. ``label`` names the file in errors.

    Raises:
        RegrowError: the file as a whole cannot be read.
    """
    with path.open("rb") as stream:
        if stream.read(2) in _UTF_16:
            raise RegrowError(f"{label} is UTF-16 text.", "Save it as UTF-8.")
    if kind == "json" and _is_array(path):
        return _read_array(path, label)
    return _read_lines(path)


def _is_array(path: Path) -> bool:
    with path.open(encoding="utf-8-sig", errors="replace") as stream:
        return stream.read(4096).lstrip().startswith("[")


def _read_lines(path: Path) -> Iterator[NumberedRow]:
    with path.open("rb") as stream:
        for number, line in enumerate(stream):
            if line.strip():
                yield number, _parse(line.removeprefix(b"\xef\xbb\xbf"))


def _read_array(path: Path, label: str) -> Iterator[NumberedRow]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise RegrowError(f"{label} is not valid JSON: {reason}.", "Correct the file, or give one JSON object per line.") from None
    for number, row in enumerate(rows):
        yield number, _as_row(row)


def _parse(line: bytes) -> Row | BadRow:
    try:
        return _as_row(json.loads(line))
    except UnicodeDecodeError:
        return BadRow("not valid UTF-8")
    except (ValueError, RecursionError):  # ValueError: also an integer of more digits than Python reads
        return BadRow("malformed JSON")


def _as_row(value: Any) -> Row | BadRow:
    return value if isinstance(value, dict) else BadRow("not a JSON object")

"""Rows of a block of JSON Lines, each with its line. A row that cannot be read is a value, not an exception."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from stages.tokenize.example import BadRow, Row

NumberedRow = tuple[int, Row | BadRow]


def read_rows(block: bytes) -> Iterator[NumberedRow]:
    """(line from the block's first, row) of every line that is not blank."""
    for number, line in enumerate(block.split(b"\n")):
        if line.strip():
            yield number, _parse(line.removeprefix(b"\xef\xbb\xbf"))


def _parse(line: bytes) -> Row | BadRow:
    try:
        value: Any = json.loads(line)
    except UnicodeDecodeError:
        return BadRow("not valid UTF-8")
    except (ValueError, RecursionError):  # ValueError: also an integer of more digits than Python reads
        return BadRow("malformed JSON")
    return value if isinstance(value, dict) else BadRow("not a JSON object")

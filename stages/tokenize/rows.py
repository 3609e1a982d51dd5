"""Rows of a block of JSON Lines, each with its line. A row that cannot be read is a value, not an exception."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from stages.tokenize.example import BadRow, Row

NumberedRow = tuple[int, Row | BadRow]

DEEPEST = 100
"""Levels of lists and objects in a row. Deeper ones would end at Python's limit on recursion, which each process meets elsewhere."""

TOO_DEEP = f"nested in more than {DEEPEST} levels"


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
    except ValueError:  # also an integer of more digits than Python reads
        return BadRow("malformed JSON")
    except RecursionError:
        return BadRow(TOO_DEEP)
    if line.count(b"[") + line.count(b"{") > DEEPEST and is_too_deep(value):
        return BadRow(TOO_DEEP)
    return value if isinstance(value, dict) else BadRow("not a JSON object")


def is_too_deep(value: Any) -> bool:
    """Whether a value has more than :data:`DEEPEST` levels of lists and objects."""
    level = [value]
    for _ in range(DEEPEST + 1):
        level = [inner for item in level if isinstance(item, dict | list) for inner in (item.values() if isinstance(item, dict) else item)]
        if not level:
            return False
    return True

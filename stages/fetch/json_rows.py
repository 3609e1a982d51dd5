"""Rows of JSON files: lines as they are, items of an array one after another, never the whole file at once."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from pipeline.errors import RegrowError
from stages.fetch.values import to_line

NumberedLine = tuple[int, bytes]
"""A row's position in its file, from 0, and the row as a line of JSON without a line end."""

LONGEST_ROW = 2**28
"""Bytes. A row beyond it is no row for a language model, and would not fit into memory many times over."""

_CHUNK = 2**20
_BOM = b"\xef\xbb\xbf"
# Lines may hold lists too (and are then no usable rows): an array begins with an object, or ends its first line early.
_ARRAY = re.compile(rb'\s*\[\s*([{\]"]|$)')
_OPEN_OBJECT = re.compile(rb"\s*\{\s*\n")
_SPACE = re.compile(r"\s*")
_DECODER = json.JSONDecoder()


def is_lines(path: Path) -> bool:
    """Whether a JSON file has one row per line, as opposed to an array or objects that span lines."""
    with path.open("rb") as stream:
        start = stream.read(4096).removeprefix(_BOM)
    return not (_ARRAY.match(start) or _OPEN_OBJECT.match(start))


def line_rows(path: Path, label: str) -> Iterator[NumberedLine]:
    """Lines of JSON Lines as they are, malformed ones too; blank ones are no rows.

    Raises:
        RegrowError: a line is longer than a row can be.
    """
    with path.open("rb", buffering=_CHUNK) as stream:
        number = 0
        while line := stream.readline(LONGEST_ROW):
            if len(line) == LONGEST_ROW:
                raise _too_long(label, number)
            if line.strip():
                yield number, line.rstrip(b"\r\n")
            number += 1


def item_rows(path: Path, label: str) -> Iterator[NumberedLine]:
    """Items of a JSON array, or objects one after another. A text item ``x`` is the row ``{"text": x}``.

    Raises:
        RegrowError: the file is not JSON; names the item.
    """
    # Bytes that are no UTF-8 come out as they went in: that row is refused later, with its number, and not the whole file.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        for number, item in enumerate(_Items(stream, label)):
            yield number, to_line({"text": item} if isinstance(item, str) else item)


class _Items:
    """Decodes values out of a buffer that is filled as needed: memory is that of the longest item."""

    def __init__(self, stream: TextIO, label: str) -> None:
        self._stream, self._label = stream, label
        self._text, self._at, self._ended = "", 0, False

    def __iter__(self) -> Iterator[object]:
        number, in_array = 0, self._next_character() == "["
        self._at += in_array
        while (character := self._next_character()) not in ("", "]"):
            if number and in_array:
                if character != ",":
                    raise self._broken(number, f"a comma or ] is missing before {self._near()}")
                self._at += 1
                self._next_character()
            yield self._decode(number)
            number += 1
        if in_array and character != "]":
            raise self._broken(number, "the array is not closed; the file may be cut")
        self._at += in_array
        if self._next_character():
            raise self._broken(number, f"{self._near()} follows the end of the array")

    def _decode(self, number: int) -> object:
        while True:
            try:
                item, end = _DECODER.raw_decode(self._text, self._at)
            except RecursionError:
                raise self._broken(number, "it is nested too deeply") from None
            except ValueError as error:
                if self._is_final(error) or not self._read_more(number):
                    raise self._broken(number, _reason(error)) from None
                continue
            if end < len(self._text) or not self._read_more(number):  # a number may go on in what is not read yet
                self._at = end
                return item

    def _is_final(self, error: ValueError) -> bool:
        """Whether reading on cannot mend it: it is in the middle of what was read, and no text that is still open."""
        if self._ended or not isinstance(error, json.JSONDecodeError):
            return True
        return error.pos < len(self._text) - 16 and not error.msg.startswith("Unterminated string")

    def _next_character(self) -> str:
        while True:
            match = _SPACE.match(self._text, self._at)
            assert match is not None
            self._at = match.end()
            if self._at < len(self._text) or not self._read_more(0):
                return self._text[self._at : self._at + 1]

    def _read_more(self, number: int) -> bool:
        """At least as much again as is waiting, so that a long item is decoded a few times and not once for each chunk."""
        self._text, self._at = self._text[self._at :], 0
        if len(self._text) > LONGEST_ROW:
            raise _too_long(self._label, number)
        more = self._stream.read(max(_CHUNK, len(self._text)))
        self._ended = not more
        self._text += more
        return bool(more)

    def _near(self) -> str:
        return repr(self._text[self._at : self._at + 20])

    def _broken(self, number: int, reason: str) -> RegrowError:
        return RegrowError(
            f"{self._label} is not valid JSON at item {number + 1}: {reason}.", "Correct the file, or give one JSON object per line."
        )


def _reason(error: ValueError) -> str:
    return error.msg[0].lower() + error.msg[1:] if isinstance(error, json.JSONDecodeError) else "a number has too many digits"


def _too_long(label: str, number: int) -> RegrowError:
    return RegrowError(
        f"{label}: row {number + 1} is longer than {LONGEST_ROW // 2**20} MiB.", "A row is one example: one line of JSON, or one item."
    )

"""Rows as fetch stored them, by their number at the source."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.artifact import Artifact


class RawRows:
    """Rows of data/raw. Its sources are in the order of those of data/tokens."""

    def __init__(self, artifact: Artifact) -> None:
        self._artifact = artifact

    def read(self, source: int, rows: Iterable[int]) -> dict[int, Any]:
        """The value of each of ``rows`` that can be read; one pass over the file of the source."""
        places = {row: line for row in set(rows) if (line := self._line(source, row)) is not None}
        lines = _lines(self._artifact.path / self._facts(source)["rows_file"], set(places.values()))
        found = {row: lines[line] for row, line in places.items() if line in lines}
        return {row: value for row, text in found.items() if (value := _parsed(text)) is not None}

    def why_absent(self, source: int, row: int) -> str:
        """Why a row that was neither tokenized nor left out by tokenize is not there."""
        line = self._line(source, row)
        if line is None:
            return "fetch did not take it (split, skip, shards, weight, or enough rows for max_steps)"
        text = _lines(self._artifact.path / self._facts(source)["rows_file"], {line}).get(line)
        return "the file has fewer lines" if text is None else "the line is blank"

    def _facts(self, source: int) -> Mapping[str, Any]:
        facts: Mapping[str, Any] = self._artifact.content["sources"][source]
        return facts

    def _line(self, source: int, row: int) -> int | None:
        """Its line in the rows file, from 0. Where rows were chosen, their numbers stand in a file beside it."""
        numbers = self._facts(source).get("numbers")
        if numbers is None:
            return row
        found = np.flatnonzero(np.fromfile(self._artifact.path / numbers, "<i8") == row)
        return int(found[0]) if len(found) else None


def _lines(path: Path, wanted: set[int]) -> dict[int, bytes]:
    """The lines of these numbers that the file has. One pass, which ends behind the last of them."""
    found: dict[int, bytes] = {}
    last = max(wanted, default=-1)
    with path.open("rb") as stream:
        for number, line in enumerate(stream):
            if number > last:
                break
            if number in wanted:
                found[number] = line
    return found


def _parsed(line: bytes) -> Any:
    """The row; nothing for one that is no JSON."""
    try:
        return json.loads(line.removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, RecursionError):
        return None

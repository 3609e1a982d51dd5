"""Rows of text files and of CSV tables."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import RegrowError
from stages.fetch.json_rows import LONGEST_ROW, NumberedLine
from stages.fetch.values import to_line

Cell = str | int | float | bool | None

# What pandas, and with it `datasets`, reads as no value.
_NO_VALUE = frozenset(
    "|#N/A|#N/A N/A|#NA|-1.#IND|-1.#QNAN|-NaN|-nan|1.#IND|1.#QNAN|<NA>|N/A|NA|NULL|NaN|None|n/a|nan|null".split("|")  # noqa: SIM905
)
_BOOLEANS = {"True": True, "TRUE": True, "true": True, "False": False, "FALSE": False, "false": False}
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,17})(\.[0-9]+)?([eE][+-]?[0-9]{1,2})?")  # what is longer is a name, and would lose digits


def text_rows(path: Path, label: str) -> Iterator[NumberedLine]:
    """One row ``{"text": line}`` per line, blank ones too; a line ends with LF, CR LF or CR, as for `datasets`.

    Raises:
        RegrowError: a line is longer than a row can be.
    """
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as stream:
        number = 0
        while line := stream.readline(LONGEST_ROW):
            if len(line) == LONGEST_ROW:
                raise RegrowError(f"{label}: line {number + 1} is longer than {LONGEST_ROW // 2**20} MiB.", "One line is one row.")
            yield number, to_line({"text": line.removesuffix("\n")})
            number += 1


def csv_rows(path: Path, label: str) -> Iterator[NumberedLine]:
    """Rows of a table with a header, commas between cells and quotes around those that need them.

    Cells are what pandas takes them for, decided for a column as a whole, so that a row's type never depends on its
    neighbours in a chunk: empty cells and pandas' names for no value are null; a column of True and False, of integers
    or of numbers as JSON writes them is that; all else is text. Other than with pandas, digits with a leading zero stay
    text, and integers stay integers where cells are empty.

    Raises:
        RegrowError: a row has more cells than the header, a quote is not closed, or it is not UTF-8.
    """
    readers = _column_readers(path, label)
    for number, cells in enumerate(_cells(path, label)):
        values = {name: None if cell in _NO_VALUE else read(cell) for (name, read), cell in zip(readers.items(), cells, strict=False)}
        yield number, to_line(dict.fromkeys(readers) | values)


def _column_readers(path: Path, label: str) -> dict[str, Callable[[str], Cell]]:
    """By column, what makes a value of a cell. Reads the whole file once."""
    header = next(_records(path, label), None)
    if header is None:
        raise RegrowError(f"{label} is empty.", "A CSV file begins with a line of column names.")
    names = _distinct(header)
    kinds = [_Column() for _ in names]
    for cells in _cells(path, label):
        for kind, cell in zip(kinds, cells, strict=False):
            kind.see(cell)
    return dict(zip(names, (kind.reader() for kind in kinds), strict=True))


class _Column:
    """What all cells of a column have in common, so far."""

    def __init__(self) -> None:
        self._candidates: list[tuple[Callable[[str], Any], Callable[[str], Cell]]] = [
            (_BOOLEANS.__contains__, _BOOLEANS.__getitem__),
            (_INTEGER.fullmatch, int),
            (_NUMBER.fullmatch, float),
        ]

    def see(self, cell: str) -> None:
        if self._candidates and cell not in _NO_VALUE:
            self._candidates = [candidate for candidate in self._candidates if candidate[0](cell)]

    def reader(self) -> Callable[[str], Cell]:
        return self._candidates[0][1] if self._candidates else str


def _distinct(header: list[str]) -> list[str]:
    """As pandas names columns that have no name, or one that is taken: ``Unnamed: 0``, ``text.1``."""
    names: list[str] = []
    for position, name in enumerate(header):
        wanted = found = name or f"Unnamed: {position}"
        count = 0
        while found in names:
            count += 1
            found = f"{wanted}.{count}"
        names.append(found)
    return names


def _cells(path: Path, label: str) -> Iterator[list[str]]:
    """The rows below the header; blank lines are none."""
    records = _records(path, label)
    width = len(next(records, []))
    for number, cells in enumerate(records):
        if len(cells) > width:
            raise RegrowError(
                f"{label}: row {number + 1} has {len(cells)} cells, and the header names {width} columns.",
                "Put quotes around cells that hold commas, and double the quotes inside them.",
            )
        yield cells


def _records(path: Path, label: str) -> Iterator[list[str]]:
    csv.field_size_limit(LONGEST_ROW)
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream, strict=True)
        try:
            yield from (cells for cells in reader if cells)
        except csv.Error as error:
            remedy = "Correct the file: cells that hold commas, quotes or line breaks stand in quotes, quotes inside are doubled."
            raise RegrowError(f"{label} is not a CSV table at line {reader.line_num}: {error}.", remedy) from None
        except UnicodeDecodeError as error:
            raise RegrowError(f"{label} is not UTF-8 text (after line {reader.line_num}: {error.reason}).", "Save it as UTF-8.") from None

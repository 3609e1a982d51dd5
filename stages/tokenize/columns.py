"""Columns of a row: read with a reason when they cannot be used, and put into texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from string import Formatter
from typing import Any

from stages.tokenize.example import BadRow, Row, text_field

Fill = Callable[[Row], str]


def filled(text: str, read: Mapping[str, Callable[[Row], str]] = {}) -> Fill:
    """A function that puts a row's columns into ``text``, where their names stand in braces.

    ``read`` says how columns that are no plain text are read.
    """
    pieces = [(literal, column) for literal, column, _, _ in Formatter().parse(text)]

    def fill(row: Row) -> str:
        parts: list[str] = []
        for literal, column in pieces:
            parts.append(literal)
            if column is not None:
                parts.append(read[column](row) if column in read else text_field(row, column))
        return "".join(parts)

    return fill


def columns_of(text: str) -> tuple[str, ...]:
    """The columns that ``text`` names."""
    return tuple(column for _, column, _, _ in Formatter().parse(text) if column is not None)


def optional_text(row: Row, column: str | None) -> str:
    """A text column that may be missing, null or empty."""
    return "" if column is None else text_field(row, column, default="")


def list_field(row: Row, column: str) -> list[Any]:
    """A column that holds a list of something."""
    value = row.get(column)
    if not isinstance(value, list):
        raise BadRow(f"column {column!r} is missing" if value is None else f"column {column!r} is not a list")
    if not value:
        raise BadRow(f"column {column!r} is empty")
    return value


def text_in(item: Any, key: str, what: str) -> str:
    """A text under ``key`` of something inside a column; ``what`` names it in the reason."""
    value = item.get(key) if isinstance(item, dict) else None
    if not isinstance(value, str):
        raise BadRow(f"{what} has no text under {key!r}")
    return value

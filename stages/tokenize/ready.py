"""Rows that are tokenized already: columns input_ids and labels, and perhaps attention_mask."""

from __future__ import annotations

from collections.abc import Sequence

from stages.tokenize.example import BadRow, Format, Made, Row, Tokenized

_COLUMNS = frozenset({"input_ids", "attention_mask", "labels"})
_IGNORED = -100


def ready_format(row: Row) -> Tokenized:
    """The row as it is. Padding (attention 0) is taken out; a label is its token's id, or -100 where nothing is trained."""
    ids, labels = _integers(row, "input_ids"), _integers(row, "labels")
    attention = _integers(row, "attention_mask") if row.get("attention_mask") is not None else [1] * len(ids)
    if not len(ids) == len(labels) == len(attention):
        raise BadRow(f"{len(ids)} input_ids, {len(labels)} labels and {len(attention)} numbers in attention_mask")
    kept = [place for place, seen in enumerate(attention) if seen]
    return tokenized([ids[place] for place in kept], [labels[place] for place in kept])


def tokenized(ids: list[int], labels: list[int]) -> Tokenized:
    """A tokenized row from ids and labels of equal length.

    Raises:
        BadRow: a label is neither its token's id nor -100.
    """
    for place, (token, label) in enumerate(zip(ids, labels, strict=True)):
        if label not in (_IGNORED, token):
            raise BadRow(f"label {label} at position {place} is neither the token there ({token}) nor {_IGNORED}")
    return Tokenized(ids, [int(label != _IGNORED) for label in labels])


class OrReady:
    """A format, except that a row that has all three columns is ready, whatever the type of its dataset.

    Attributes:
        warnings: those of the format.
    """

    def __init__(self, format_row: Format) -> None:
        self._format = format_row
        self.warnings: Sequence[str] = getattr(format_row, "warnings", ())

    def __call__(self, row: Row) -> Made:
        """The row's example, or its tokens."""
        return ready_format(row) if "input_ids" in row and row.keys() >= _COLUMNS else self._format(row)


def _integers(row: Row, column: str) -> list[int]:
    value = row.get(column)
    if not isinstance(value, list):
        raise BadRow(f"column {column!r} is missing" if value is None else f"column {column!r} is not a list")
    if not all(type(item) is int for item in value):
        raise BadRow(f"column {column!r} holds something that is no whole number")
    return value

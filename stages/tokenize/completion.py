"""Text to continue: whole documents, and segments that the data itself marks as trained or not."""

from __future__ import annotations

from typing import Any

from stages.tokenize.columns import list_field, text_in
from stages.tokenize.example import BadRow, Example, Format, Piece, Row, text_field


def completion_format(column: str) -> Format:
    """Every token of the text is trained, and an end-of-sequence token after it."""

    def completion(row: Row) -> Example:
        text = text_field(row, column)
        if not text:
            raise BadRow(f"column {column!r} is empty")
        return Example((Piece.whole(text, True),), bos=True, eos=True)

    return completion


def segments_format(train_on_inputs: bool) -> Format:
    """Column segments: a list of text and label (whether it is trained). Each is tokenized apart, and nothing is added:
    no beginning, no end, no template."""

    def segments(row: Row) -> Example:
        return Example(tuple(_segment(item, train_on_inputs) for item in list_field(row, "segments")))

    return segments


def _segment(item: Any, train_on_inputs: bool) -> Piece:
    text = text_in(item, "text", "a segment")
    label = item.get("label")
    if not isinstance(label, bool) and label not in (0, 1):
        raise BadRow("a segment has no true or false under 'label'")
    return Piece.whole(text, bool(label) or train_on_inputs)

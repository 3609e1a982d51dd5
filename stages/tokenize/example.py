"""What a row becomes before it is tokenized, and why a row could not be used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]


class BadRow(Exception):
    """This row cannot be used. The text is the reason; rows are counted and listed by it."""


@dataclass(frozen=True)
class Piece:
    """Text that is tokenized by itself, and the character spans ``[start, end)`` of it that are trained."""

    text: str
    trained: tuple[tuple[int, int], ...]

    @classmethod
    def whole(cls, text: str, trained: bool) -> Piece:
        """All of the text is trained, or none."""
        return cls(text, ((0, len(text)),) if trained and text else ())


@dataclass(frozen=True)
class Example:
    """A row ready for the tokenizer. Pieces are tokenized apart, so that no token spans two of them.

    ``bos``: put the tokenizer's own prefix (a beginning-of-sequence token, if it has one) in front.
    ``eos``: end with a trained end-of-sequence token.
    ``labels``: what trained tokens stand for where that is not the token itself: one for the row (1 wanted, 0 not wanted),
    or one per trained token (process rewards).
    ``slow``: its chat template had to be rendered turn by turn to find its places.
    """

    pieces: tuple[Piece, ...]
    bos: bool = False
    eos: bool = False
    labels: tuple[int, ...] = ()
    slow: bool = False


@dataclass(frozen=True)
class Preference:
    """A row with two answers. Each example is whole, prompt included; what is trained of it is the answer."""

    chosen: Example
    rejected: Example


@dataclass(frozen=True)
class Prompt:
    """A row that the model answers itself. Nothing of ``example`` is trained; ``reference`` holds all columns, prompt included, as JSON."""

    example: Example
    reference: str


@dataclass(frozen=True)
class Tokenized:
    """A row that is tokenized already. Lists ``[tokens]``; ``labels`` as of :class:`Example`."""

    input_ids: list[int]
    loss_mask: list[int]
    labels: tuple[int, ...] = ()


Made = Example | Preference | Prompt | Tokenized
"""What a row can become."""

Format = Callable[[Row], Made]
"""A dataset type: turns one row into an example or raises :class:`BadRow`."""


def text_field(row: Row, field: str, *, default: str | None = None) -> str:
    """A string column of a row. Without ``default`` it must be there."""
    value = row.get(field, default)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise BadRow(f"column {field!r} is missing" if field not in row else f"column {field!r} is not text")
    return value

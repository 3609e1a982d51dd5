"""Text that remembers where it came from while a chat template passes it around.

A template is rendered once. Each turn's content goes in as :class:`Traced` text; whatever the template does to it
(concatenate, trim, slice, split, set, call macros) keeps the origin of every character that survives, so that the
rendered text itself says where each turn's content stands. An operation that is not followed gives plain text.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, SupportsIndex

Span = tuple[int, int, int]
"""``(start, end, turn)``: characters ``[start, end)`` are content of that turn."""


class Traced(str):
    """A string with the spans of it that are some turn's content."""

    __slots__ = ("spans",)
    spans: tuple[Span, ...]

    def __new__(cls, text: str, spans: Iterable[Span] = ()) -> Traced:
        traced = super().__new__(cls, text)
        traced.spans = tuple(spans)
        return traced

    @classmethod
    def content(cls, text: str, turn: int) -> Traced:
        """The whole text is content of ``turn``."""
        return cls(text, ((0, len(text), turn),))

    def __str__(self) -> str:
        return self

    def __add__(self, other: str) -> Traced:
        return join_traced((self, other))

    def __radd__(self, other: str) -> Traced:
        return join_traced((other, self))

    def __getitem__(self, key: SupportsIndex | slice) -> str:
        if isinstance(key, slice):
            start, stop, step = key.indices(len(self))
            return self._cut(start, max(start, stop)) if step == 1 else str.__getitem__(self, key)
        start = key.__index__() + (len(self) if key.__index__() < 0 else 0)
        text = str.__getitem__(self, key)
        return self._cut(start, start + len(text))

    def _cut(self, start: int, stop: int) -> Traced:
        cut = ((max(a, start) - start, min(b, stop) - start, turn, a == b) for a, b, turn in self.spans)
        kept = ((a, b, turn) for a, b, turn, empty in cut if a < b or (empty and a == b))
        return Traced(str.__getitem__(self, slice(start, stop)), kept)

    def lstrip(self, chars: str | None = None, /) -> Traced:
        return self._cut(len(self) - len(str.lstrip(self, chars)), len(self))

    def rstrip(self, chars: str | None = None, /) -> Traced:
        return self._cut(0, len(str.rstrip(self, chars)))

    def strip(self, chars: str | None = None, /) -> Traced:
        return self.rstrip(chars).lstrip(chars)

    def removeprefix(self, prefix: str, /) -> Traced:
        return self._cut(len(prefix), len(self)) if self.startswith(prefix) else self

    def removesuffix(self, suffix: str, /) -> Traced:
        return self._cut(0, len(self) - len(suffix)) if suffix and self.endswith(suffix) else self

    def replace(self, old: str, new: str, count: SupportsIndex = -1, /) -> str:
        return str.replace(self, old, new, count) if old in self else self

    def split(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        if not sep:
            return str.split(self, sep, maxsplit)
        parts, start = [], 0
        for part in str.split(self, sep, maxsplit):
            parts.append(self._cut(start, start + len(part)))
            start += len(part) + len(sep)
        return list(parts)


def join_traced(pieces: Iterable[Any]) -> Traced:
    """Concatenate, as ``"".join`` does, keeping every origin."""
    texts, spans, length = [], [], 0
    for piece in map(str, pieces):
        if isinstance(piece, Traced):
            spans += [(start + length, end + length, turn) for start, end, turn in piece.spans]
        texts.append(piece)
        length += len(piece)
    return Traced("".join(texts), spans)

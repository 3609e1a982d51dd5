"""Text that remembers where it came from while a chat template passes it around.

A template is rendered once. The strings of a conversation go in as :class:`Traced` text; whatever the template does to them
(concatenate, trim, slice, split, replace, set, call macros) keeps the origin of every character that survives, so that the
rendered text itself says where each string stands. An operation that is not followed gives plain text.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, SupportsIndex

Span = tuple[int, int, int, int]
"""``(start, end, source, offset)``: characters ``[start, end)`` are those of string ``source`` from its character ``offset`` on.

The content of turn ``t`` is source ``t``, its reasoning is source ``~t``.
"""


def turn_of(source: int) -> int:
    """The turn that says the string ``source``."""
    return source if source >= 0 else ~source


class Traced(str):
    """A string with the spans of it that come from a conversation."""

    __slots__ = ("spans",)
    spans: tuple[Span, ...]

    def __new__(cls, text: str, spans: Iterable[Span] = ()) -> Traced:
        traced = super().__new__(cls, text)
        traced.spans = tuple(spans)
        return traced

    @classmethod
    def whole(cls, text: str, source: int) -> Traced:
        """All of ``text`` is string ``source``."""
        return cls(text, ((0, len(text), source, 0),))

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
        text = str.__getitem__(self, key)
        start = key.__index__() % len(self)
        return self._cut(start, start + len(text))

    def _cut(self, start: int, stop: int) -> Traced:
        kept = []
        for a, b, source, offset in self.spans:
            low, high = max(a, start), min(b, stop)
            if low < high or a == b == low == high:
                kept.append((low - start, high - start, source, offset + low - a))
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
        if old not in self:
            return self
        return join_between(new, self.split(old, count)) if old else str.replace(self, old, new, count)

    def split(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        parts = str.split(self, sep, maxsplit)
        return self._cuts(parts, len(sep)) if sep else parts

    def rsplit(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        parts = str.rsplit(self, sep, maxsplit)
        return self._cuts(parts, len(sep)) if sep else parts

    def partition(self, sep: str, /) -> tuple[str, str, str]:
        first, middle, last = self._cuts(str.partition(self, sep), 0)
        return first, middle, last

    def rpartition(self, sep: str, /) -> tuple[str, str, str]:
        first, middle, last = self._cuts(str.rpartition(self, sep), 0)
        return first, middle, last

    def _cuts(self, parts: Iterable[str], gap: int) -> list[str]:
        cuts: list[str] = []
        start = 0
        for part in parts:
            cuts.append(self._cut(start, start + len(part)))
            start += len(part) + gap
        return cuts


def join_traced(pieces: Iterable[Any]) -> Traced:
    """Concatenate, as ``"".join`` does, keeping every origin."""
    texts, spans, length = [], [], 0
    for piece in pieces:
        if type(piece) is Traced:
            for start, end, source, offset in piece.spans:
                spans.append((start + length, end + length, source, offset))
        elif not isinstance(piece, str):
            piece = str(piece)
        texts.append(piece)
        length += len(piece)
    return Traced("".join(texts), spans)


def join_between(separator: str, pieces: Iterable[Any]) -> Traced:
    """Concatenate with ``separator`` between the pieces, keeping every origin."""
    joined: list[Any] = []
    for piece in pieces:
        joined += (separator, piece)
    return join_traced(joined[1:])

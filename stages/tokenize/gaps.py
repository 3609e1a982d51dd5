"""Two renderings of a conversation, held against each other where only some turns differ."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from stages.tokenize.traced import Span, Traced

Region = tuple[int, int]
"""Characters ``[start, end)`` of the text."""


class Found(NamedTuple):
    """A region, and whether the text around it is as the rendering leads to expect."""

    region: Region
    certain: bool


def hull(spans: Sequence[Span]) -> Region:
    """From the first character of spans to the last."""
    return min(span[0] for span in spans), max(span[1] for span in spans)


class Gaps:
    """The text and a rendering with words in it, held against each other between turns that are the same in both.

    ``clear`` are these turns; ``words`` the places of the words in the rendering, -1 for those that are not printed.
    """

    def __init__(self, text: Traced, plain: Traced, clear: Collection[int], words: Iterable[int]) -> None:
        self._text, self._plain = str.__str__(text), str.__str__(plain)
        here = {source: (start, end) for start, end, source, _ in text.spans if source in clear}
        there = [(start, end, *here[source]) for start, end, source, _ in plain.spans if source in here]
        self._same = sorted(there)
        self._words = sorted(words)
        self._starts, self._ends = [same[0] for same in self._same], [same[1] for same in self._same]

    def region(self, start: int, end: int, own: Sequence[Span]) -> Found | None:
        """What stands in the text where the rendering has the word ``[start, end)``; ``None`` where other words are too near to tell.

        ``own`` are the turn's spans in the text.
        """
        before, after = bisect_right(self._ends, start) - 1, bisect_left(self._starts, end)
        plain_from, text_from = (self._same[before][1], self._same[before][3]) if before >= 0 else (0, 0)
        plain_to, text_to = (self._same[after][0], self._same[after][2]) if after < len(self._same) else (len(self._plain), len(self._text))
        if text_from > text_to or bisect_left(self._words, plain_to) - bisect_left(self._words, plain_from) > 1:
            return None
        own = [span for span in own if text_from <= span[0] and span[1] <= text_to]
        first, last = hull(own) if own else (text_to, text_from)
        head, gap = self._plain[plain_from:start], self._text[text_from:first]
        same = _common(head, gap)
        begin = text_from + (same if same in (len(head), len(gap)) else _outside_tag(head[:same]))
        floor = max(begin, last)
        tail, gap = self._plain[end:plain_to], self._text[floor:text_to]
        same = _common(tail[::-1], gap[::-1])
        finish = text_to - (same if same in (len(tail), len(gap)) else same - _inside_tag(tail[len(tail) - same :]))
        as_expected = self._text[text_from:begin] == head and self._text[finish:text_to] == tail
        return Found((begin, max(begin, finish)), bool(own) or as_expected or begin >= finish)


def _common(left: str, right: str) -> int:
    """How many first characters are the same."""
    low, high = 0, min(len(left), len(right))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if left[low:middle] == right[low:middle] else (low, middle - 1)
    return low


def _outside_tag(text: str) -> int:
    """Length of ``text`` without a tag (``<…>``, ``[…]``) that it ends in the middle of."""
    opened = max(text.rfind("<"), text.rfind("["))
    return len(text) if opened < 0 or any(close in text[opened:] for close in ">]") else opened


def _inside_tag(text: str) -> int:
    """How many first characters of ``text`` are the rest of a tag."""
    closed = min((place for place in map(text.find, ">]") if place >= 0), default=-1)
    return 0 if closed < 0 or any(opened in text[:closed] for opened in "<[") else closed + 1

"""What a dataset's `split` says: names of splits, each with a slice, as in the `datasets` library (``train[:10%]+test``).

Text in, values out: nothing here looks at a file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pipeline.errors import RegrowError

_NAME = r"\w+(?:\.\w+)*"
_BOUND = r"(-?[0-9]{1,3}(?:_?[0-9]{1,3}){0,5})?(%)?"
_SLICE = re.compile(rf"(?P<name>{_NAME})(?:\[{_BOUND}:{_BOUND}\])?(?:\((?P<rounding>[^)]*)\))?")
_EVERY = "pct1_dropremainder"
_ROUNDINGS = (None, "closest", _EVERY)


@dataclass(frozen=True)
class Slice:
    """Consecutive rows of a split.

    Attributes:
        name: the split's; ``all`` is every split, one after another.
        start, stop: row numbers, from the end when negative, or percent; ``None`` is the first row, or the end.
        percent: whether they are percent.
        whole_percents: a percent is as many rows as go into a hundredth of the split without remainder.
    """

    name: str
    start: int | None = None
    stop: int | None = None
    percent: bool = False
    whole_percents: bool = False

    @property
    def needs_total(self) -> bool:
        """Whether the bounds depend on how many rows the split has."""
        return self.percent or (self.start or 0) < 0 or (self.stop or 0) < 0

    @property
    def is_whole(self) -> bool:
        """Whether no row is left out."""
        return self.start is None and self.stop is None

    def bounds(self, total: int) -> tuple[int, int]:
        """First row, and the row after the last, of a split of ``total`` rows."""
        start, stop = self._row(self.start, 0, total), self._row(self.stop, total, total)
        return min(start, total), min(max(start, stop), total)

    def _row(self, bound: int | None, default: int, total: int) -> int:
        if bound is None:
            return default
        if self.percent:
            bound = bound * (total // 100) if self.whole_percents else round(bound * total / 100)
        return max(total + bound, 0) if bound < 0 else bound


def parse_split(text: str) -> tuple[Slice, ...]:
    """The slices that are joined by ``+``, in order.

    Raises:
        RegrowError: not of that form.
    """
    return tuple(_parse(part) for part in re.split(r"\s*\+\s*", text.strip()))


def _parse(text: str) -> Slice:
    match = _SLICE.fullmatch(text)
    if match is None:
        raise RegrowError(f"{text!r} is not a split.", "These forms work: train, train[:1000], train[10%:20%], train+test.")
    start, start_percent, stop, stop_percent = match.group(2, 3, 4, 5)
    first, last = (int(bound) if bound else None for bound in (start, stop))
    percent = bool(start_percent or stop_percent)
    if percent and max(abs(first or 0), abs(last or 0)) > 100:
        raise RegrowError(f"{text!r} goes beyond 100 percent.", "Percentages are from -100 to 100, or write rows without %.")
    if match["rounding"] not in _ROUNDINGS or (match["rounding"] and not percent):
        raise RegrowError(f"{text!r} has no rounding that is known.", "Behind percentages, (closest) or (pct1_dropremainder) works.")
    return Slice(match["name"], first, last, percent, match["rounding"] == _EVERY)

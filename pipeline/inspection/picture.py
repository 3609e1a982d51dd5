"""A picture of the rows: how long they are, and how much of them is trained. A small SVG, the same bytes for the same rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from pipeline.inspection.opened import Opened, label

# Told apart with any colour vision (after Okabe and Ito). The last one stands for all further sources.
_COLOURS = ("#2f7fc1", "#c9701a", "#1d9a73", "#a866b8", "#848b94")
_INK, _RULE, _FAINT = "#1f2328", "#d0d7de", "#59636e"
_WIDTH, _PLOT_HEIGHT, _LEFT, _RIGHT, _GAP = 760, 190, 78, 22, 74
_TOP, _LEGEND_LINE = 64, 20
_BINS = 60


@dataclass(frozen=True)
class Histogram:
    """Counts to draw.

    Attributes:
        title: above the plot.
        axis: what the horizontal axis counts, with its unit.
        edges: ``[bins + 1]``.
        counts: int64 ``[sources, bins]``.
        ticks: (value, text) of the horizontal axis.
        middle: median, marked by a line, and its text.
        is_logarithmic: each bin is as wide as the next, whatever it holds.
    """

    title: str
    axis: str
    edges: np.ndarray
    counts: np.ndarray
    ticks: Sequence[tuple[float, str]]
    middle: tuple[float, str]
    is_logarithmic: bool = False


def picture(opened: Opened) -> str:
    """An SVG document: rows by length and rows by share of trained tokens, each source in its colour.

    Of a row with two answers, the chosen one is looked at.
    """
    table = opened.table
    groups, labels = _groups(opened)
    shares = 100 * table.trained / np.maximum(table.lengths, 1)
    plots = [_by_length(table.lengths, groups, len(labels)), _by_share(shares, groups, len(labels))] if len(table) else []
    return "\n".join(_document(plots, labels, _says(table.lengths, shares)))


def _groups(opened: Opened) -> tuple[np.ndarray, list[str]]:
    """Colour of each row, int64 ``[rows]``, and what the colours mean: a source each, or the last one for all others."""
    names = [label(facts) for facts in opened.sources]
    if len(names) <= len(_COLOURS):
        return opened.table.source.astype(np.int64), names
    last = len(_COLOURS) - 1
    return np.minimum(opened.table.source.astype(np.int64), last), [*names[:last], f"{len(names) - last} other sources"]


def _by_length(lengths: np.ndarray, groups: np.ndarray, colours: int) -> Histogram:
    longest, middle = int(lengths.max()), float(np.median(lengths))
    is_logarithmic = longest > 12 * middle and longest > 64
    if is_logarithmic:
        steps = np.arange(math.floor(2 * math.log2(max(int(lengths.min()), 1))), math.ceil(2 * math.log2(longest + 1)) + 1)
        edges = 2.0 ** (steps / 2)
        ticks = [(float(edge), f"{edge:,.0f}") for edge, step in zip(edges, steps, strict=True) if step % 2 == 0]
    else:
        step = max(1, math.ceil(_nice(longest / _BINS)))
        edges = np.arange(0, longest + step + 1, step, dtype=float)
        ticks = [(value, f"{value:,.0f}") for value in _round_values(float(edges[-1]))]
    axis = "tokens in a row (logarithmic)" if is_logarithmic else "tokens in a row"
    counts = _count(lengths, edges, groups, colours)
    return Histogram("Rows by length", axis, edges, counts, ticks, (middle, f"{middle:,.0f}"), is_logarithmic)


def _by_share(shares: np.ndarray, groups: np.ndarray, colours: int) -> Histogram:
    edges, middle = np.arange(0, 101, 2, dtype=float), float(np.median(shares))
    ticks = [(float(value), f"{value} %") for value in range(0, 101, 20)]
    counts = _count(shares, edges, groups, colours)
    return Histogram("Rows by share of trained tokens", "of a row's tokens are trained", edges, counts, ticks, (middle, f"{middle:.0f} %"))


def _count(values: np.ndarray, edges: np.ndarray, groups: np.ndarray, colours: int) -> np.ndarray:
    return np.stack([np.histogram(values[groups == colour], edges)[0] for colour in range(colours)])


def _nice(value: float) -> float:
    """The smallest of 1, 2, 5, 10, 20, … (and their tenths) that is not below ``value``."""
    power = 10.0 ** math.floor(math.log10(value)) if value > 0 else 1.0
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= value * (1 - 1e-9))


def _round_values(limit: float, parts: int = 5) -> list[float]:
    """0 and round whole numbers up to ``limit``, about ``parts`` of them."""
    step = max(1.0, _nice(limit / parts))
    return [at * step for at in range(int(limit / step) + 1)]


def _says(lengths: np.ndarray, shares: np.ndarray) -> str:
    """The picture in words, for those who do not see it."""
    if not len(lengths):
        return "No rows."
    return (
        f"{len(lengths):,} rows of {lengths.min():,} to {lengths.max():,} tokens, median {np.median(lengths):,.0f}; "
        f"of a row {shares.min():.0f} to {shares.max():.0f} % of the tokens are trained, median {np.median(shares):.0f} %."
    )


def _document(plots: Sequence[Histogram], labels: Sequence[str], says: str) -> Iterator[str]:
    first = _TOP + (_LEGEND_LINE * len(labels) + 12 if len(labels) > 1 else 0)
    height = first + len(plots) * (_PLOT_HEIGHT + _GAP)
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" role="img">'
    yield f"<title>What is learned</title><desc>{escape(says)}</desc>"
    yield f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>'
    yield f'<g font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif" font-size="12" fill="{_INK}">'
    yield _text(24, 28, says, size=13)
    if len(labels) > 1:
        for number, name in enumerate(labels):
            yield f'<rect x="24" y="{_number(42 + number * _LEGEND_LINE)}" width="11" height="11" fill="{_COLOURS[number]}"/>'
            yield _text(42, 52 + number * _LEGEND_LINE, name)
    for number, plot in enumerate(plots):
        yield from _plot(plot, first + number * (_PLOT_HEIGHT + _GAP))
    yield "</g>"
    yield "</svg>\n"


def _plot(plot: Histogram, top: float) -> Iterator[str]:
    bottom, tallest = top + _PLOT_HEIGHT, int(plot.counts.sum(axis=0).max())
    rounds = _round_values(tallest, 6)
    limit = max(tallest * 1.15, rounds[-1] * 1.05)  # room for the median's name above the bars

    def height(count: float) -> float:
        return bottom - count / limit * _PLOT_HEIGHT

    across = _scale(plot)
    yield _text(_LEFT, top - 12, plot.title, size=13, weight="600")
    for value in rounds:
        yield f'<path d="M{_LEFT} {_number(height(value))}H{_WIDTH - _RIGHT}" stroke="{_RULE}"/>'
        yield _text(_LEFT - 8, height(value) + 4, f"{value:,.0f}", anchor="end", colour=_FAINT)
    yield from _bars(plot, across, height)
    for value, name in plot.ticks:
        yield _text(across(value), bottom + 18, name, anchor="middle", colour=_FAINT)
    yield _text((_LEFT + _WIDTH - _RIGHT) / 2, bottom + 38, plot.axis, anchor="middle")
    yield f'<text transform="translate(18 {_number((top + bottom) / 2)}) rotate(-90)" text-anchor="middle">rows</text>'
    yield from _median(plot, across, top, bottom)


def _scale(plot: Histogram) -> Callable[[float], float]:
    """From a value to its place across the picture."""

    def position(value: float) -> float:
        return math.log2(value) if plot.is_logarithmic else value

    low, high = position(float(plot.edges[0])), position(float(plot.edges[-1]))
    return lambda value: _LEFT + (position(value) - low) / (high - low) * (_WIDTH - _RIGHT - _LEFT)


def _bars(plot: Histogram, across: Callable[[float], float], height: Callable[[float], float]) -> Iterator[str]:
    """The sources stand on each other. Where there is a row there is a line to see, if only a thin one."""
    ends = np.cumsum(plot.counts, axis=0)
    for colour, (starts, tops) in enumerate(zip(ends - plot.counts, ends, strict=True)):
        drawn = []
        for left, right, start, end in zip(plot.edges[:-1], plot.edges[1:], starts, tops, strict=True):
            if end > start:
                low, high = height(int(start)), min(height(int(end)), height(int(start)) - 1)
                across_it = f"{_number(across(left) + 0.5)} {_number(low)}V{_number(high)}H{_number(across(right) - 0.5)}V{_number(low)}"
                drawn.append(f"M{across_it}Z")
        yield f'<path d="{"".join(drawn)}" fill="{_COLOURS[colour]}"/>'


def _median(plot: Histogram, across: Callable[[float], float], top: float, bottom: float) -> Iterator[str]:
    value, name = plot.middle
    place = across(value)
    is_right = place > (_LEFT + _WIDTH) / 2
    yield f'<path d="M{_number(place)} {_number(top)}V{_number(bottom)}" stroke="{_INK}" stroke-dasharray="4 3"/>'
    yield _text(place + (-6 if is_right else 6), top + 11, f"median {name}", anchor="end" if is_right else "start")


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12, weight: str = "400", colour: str = _INK) -> str:
    place = f'x="{_number(x)}" y="{_number(y)}" text-anchor="{anchor}"'
    return f'<text {place} font-size="{size}" font-weight="{weight}" fill="{colour}">{escape(text)}</text>'


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")

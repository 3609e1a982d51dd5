"""Histograms as a small SVG: the same bytes for the same numbers, on every machine."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

# Told apart with any colour vision (after Okabe and Ito). The last one stands for all further sources.
COLOURS = ("#2f7fc1", "#c9701a", "#1d9a73", "#a866b8", "#848b94")
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
        counts: int64 ``[colours, bins]``, which stand on each other.
        ticks: (value, text) of the horizontal axis.
        middle: median, marked by a line, and its text.
        is_logarithmic: each bin is as wide as the next, whatever it holds.
        unit: what the vertical axis counts.
        colours: of ``counts``.
    """

    title: str
    axis: str
    edges: np.ndarray
    counts: np.ndarray
    ticks: Sequence[tuple[float, str]]
    middle: tuple[float, str]
    is_logarithmic: bool = False
    unit: str = "rows"
    colours: Sequence[str] = COLOURS


def by_colour(source: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Colour of each row from its ``source``, int64 ``[rows]``, and what colours mean: a source each, or the last one all others."""
    if len(names) <= len(COLOURS):
        return source.astype(np.int64), list(names)
    last = len(COLOURS) - 1
    return np.minimum(source.astype(np.int64), last), [*names[:last], f"{len(names) - last} other sources"]


def by_length(lengths: np.ndarray, groups: np.ndarray, colours: int) -> Histogram:
    """Rows by their ``lengths``, int ``[rows]`` of at least one row, each in the colour that ``groups`` says."""
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
    counts = count_by_colour(lengths, edges, groups, colours)
    return Histogram("Rows by length", axis, edges, counts, ticks, (middle, f"{middle:,.0f}"), is_logarithmic)


def by_percent(
    shares: np.ndarray, title: str, axis: str, groups: np.ndarray | None = None, colours: int = 1, unit: str = "rows"
) -> Histogram:
    """``shares`` of 0 to 100, float ``[rows]`` of at least one row; ``axis`` goes on after "%". Grey where there are no ``groups``."""
    edges, middle = np.arange(0, 101, 2, dtype=float), float(np.median(shares))
    ticks = [(float(value), f"{value} %") for value in range(0, 101, 20)]
    counts = count_by_colour(shares, edges, np.zeros(len(shares), np.int64) if groups is None else groups, colours)
    palette = COLOURS[-1:] if groups is None else COLOURS
    return Histogram(title, axis, edges, counts, ticks, (middle, f"{middle:.0f} %"), unit=unit, colours=palette)


def count_by_colour(values: np.ndarray, edges: np.ndarray, groups: np.ndarray, colours: int) -> np.ndarray:
    """How many ``values`` of each colour are between two ``edges``: int64 ``[colours, bins]``."""
    return np.stack([np.histogram(values[groups == colour], edges)[0] for colour in range(colours)])


def _nice(value: float) -> float:
    """The smallest of 1, 2, 5, 10, 20, … (and their tenths) that is not below ``value``."""
    power = 10.0 ** math.floor(math.log10(value)) if value > 0 else 1.0
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= value * (1 - 1e-9))


def _round_values(limit: float, parts: int = 5) -> list[float]:
    """0 and round whole numbers up to ``limit``, about ``parts`` of them."""
    step = max(1.0, _nice(limit / parts))
    return [at * step for at in range(int(limit / step) + 1)]


def draw(title: str, says: str, labels: Sequence[str], plots: Sequence[Histogram]) -> str:
    """An SVG document of ``plots``; ``says`` is the picture in words, ``labels`` what the colours mean."""
    return "\n".join(_document(title, says, labels, plots))


def _document(title: str, says: str, labels: Sequence[str], plots: Sequence[Histogram]) -> Iterator[str]:
    first = _TOP + (_LEGEND_LINE * len(labels) + 12 if len(labels) > 1 else 0)
    height = first + len(plots) * (_PLOT_HEIGHT + _GAP)
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" role="img">'
    yield f"<title>{escape(title)}</title><desc>{escape(says)}</desc>"
    yield f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>'
    yield f'<g font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif" font-size="12" fill="{_INK}">'
    yield _text(24, 28, says, size=13)
    if len(labels) > 1:
        for number, name in enumerate(labels):
            yield f'<rect x="24" y="{_number(42 + number * _LEGEND_LINE)}" width="11" height="11" fill="{COLOURS[number]}"/>'
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
    yield f'<text transform="translate(18 {_number((top + bottom) / 2)}) rotate(-90)" text-anchor="middle">{plot.unit}</text>'
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
        yield f'<path d="{"".join(drawn)}" fill="{plot.colours[colour]}"/>'


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

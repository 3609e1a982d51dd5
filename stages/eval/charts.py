"""The pictures of the report. Each returns an inline SVG with a text alternative that gives its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from stages.eval.pictures import INK, RULE, picture
from stages.eval.scores import Scores

# Told apart with any colour vision (after Okabe and Ito), and at least 3:1 against white and against the dark page.
_COLOURS = ("#848b94", "#2f7fc1", "#c9701a", "#1d9a73", "#a866b8")
_BLUE = _COLOURS[1]
_WIDTH = 4.4


def interval_chart(name: str, title: str, scores: Mapping[str, Scores], measure: str, reference: float | None = None) -> Markup:
    """A dot and a 95 % interval per model, its value beside it; a proportion's axis runs from 0 to 1, a loss's from 0.

    ``reference`` draws a dashed line.
    """
    is_share = measure != "loss"
    values = {model: (found[measure], found[f"{measure}_low"], found[f"{measure}_high"]) for model, found in scores.items()}
    longest = max(high for _, _, high in values.values())
    # Values stand in a column of their own at the right of the axis.
    limit = 1.0 if is_share else longest * 1.05 or 1.0

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for position, (value, low, high) in enumerate(values.values()):
            colour = _COLOURS[position % len(_COLOURS)]
            axes.plot([low, high], [position, position], color=colour, linewidth=3, alpha=0.55, solid_capstyle="butt")
            axes.plot([value], [position], "o", color=colour, markersize=8, clip_on=False, zorder=3)
            axes.text(1.05, position, f"{value:.{2 if is_share else 3}f}", va="center", transform=axes.get_yaxis_transform())
        if reference is not None:
            axes.axvline(reference, color=INK, linewidth=1, linestyle=(0, (3, 3)))
        axes.set_xlim(0, limit)
        axes.set_ylim(len(values) - 0.5, -0.5)
        axes.set_yticks(range(len(values)), list(values))
        axes.tick_params(axis="y", pad=9)  # room for a dot at 0
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")

    numbers = "; ".join(f"{model} {value:.3f} ({low:.3f} to {high:.3f})" for model, (value, low, high) in values.items())
    return picture(name, f"{title}. {numbers}.", (_WIDTH, 0.5 + 0.36 * len(values)), draw)


def size_chart(name: str, title: str, points: Mapping[str, tuple[float, float]]) -> Markup:
    """A labelled dot per model: megabytes of its weights, and its perplexity."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        low, high = (edge(value for _, value in points.values()) for edge in (min, max))
        for position, (label, (size, value)) in enumerate(points.items()):
            axes.plot([size], [value], "o", color=_COLOURS[1 + position % (len(_COLOURS) - 1)], markersize=8, clip_on=False, zorder=3)
            # In steps of two, so that labels of models of one size do not cover each other.
            axes.annotate(label, (size, value), (0, 8 if position % 2 else -15), textcoords="offset points", ha="center", fontsize=8)
        room = 0.25 * (high - low) or 0.05 * high
        axes.set_ylim(low - room, high + room)
        axes.set_xlim(0, 1.15 * max(size for size, _ in points.values()))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.4g}")
        _finish(axes, "weights, MB", "perplexity")

    told = "; ".join(f"{label} {size:.4g} MB, {value:.4g}" for label, (size, value) in points.items())
    return picture(name, f"{title}. {told}.", (_WIDTH, 2.6), draw)


def smoothing_window(points: int) -> int:
    """Points in the centred mean drawn over the loss: a tenth of them, odd; 1, which smooths nothing, below 20."""
    return points // 10 | 1


def curve(
    name: str, title: str, step: np.ndarray, values: np.ndarray, window: int = 1, held_out: tuple[np.ndarray, np.ndarray] | None = None
) -> Markup:
    """``values`` ``[points]`` over optimizer steps; with ``window`` above 1 thin, under their centred mean.

    ``held_out``: steps and values of evaluations, drawn as dots.
    """
    smooth = smoothed(values, window)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        marker = "o" if len(values) == 1 else None
        if window > 1:
            axes.plot(step, values, color=_BLUE, linewidth=1, alpha=0.45)
        axes.plot(step, smooth, color=_BLUE, linewidth=2, marker=marker)
        if held_out is not None:
            axes.plot(*held_out, "o-", color=_COLOURS[2], linewidth=1, markersize=5)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.3g}")
        axes.set_ylim(bottom=None if values.min() < 0 else 0)
        _finish(axes, "optimizer step", "")

    course = f"from {smooth[0]:.4g} to {smooth[-1]:.4g}, highest {values.max():.4g}, lowest {values.min():.4g}"
    if held_out is not None:
        course += f"; on held-out rows {len(held_out[1])} times, last {held_out[1][-1]:.4g}"
    return picture(name, f"{title} over {int(step[-1])} optimizer steps: {course}.", (_WIDTH, 2.3), draw)


def smoothed(values: np.ndarray, window: int) -> np.ndarray:
    """Centred mean of ``window`` (odd) points ``[points]``; at the ends over the points there are."""
    kernel = np.ones(window)
    totals: np.ndarray = np.convolve(values, kernel, "same") / np.convolve(np.ones(len(values)), kernel, "same")
    return totals


def histogram(name: str, what: str, values: np.ndarray, edges: Sequence[float], axis: str, unit: str, mark: float | None = None) -> Markup:
    """Counts of ``values`` between ``edges``; ``mark`` draws a dashed line."""
    counts, _ = np.histogram(values, edges)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.bar(edges[:-1], counts, np.diff(edges) * 0.92, align="edge", color=_BLUE)
        if mark is not None:
            axes.axvline(mark, color=INK, linewidth=1, linestyle=(0, (3, 3)))
        _finish(axes, axis, unit)
        axes.yaxis.set_major_locator(MaxNLocator("auto", integer=True))

    middle, most = np.median(values), values.max()
    alt = f"{what}: {len(values)} {unit}, median {middle:.4g}, smallest {values.min():.4g}, largest {most:.4g} {axis}."
    return picture(name, alt, (_WIDTH, 2.3), draw)


def _finish(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(axis="y")
    axes.spines["bottom"].set_color(RULE)
    axes.spines["left"].set_visible(False)

"""A picture of the rows: how long they are, and how much of them is trained. A small SVG, the same bytes for the same rows."""

from __future__ import annotations

import numpy as np

from pipeline.histogram import by_colour, by_length, by_percent, draw
from pipeline.inspection.opened import Opened, label


def picture(opened: Opened) -> str:
    """An SVG document: rows by length and rows by share of trained tokens, each source in its colour.

    Of a row with two answers, the chosen one is looked at.
    """
    table = opened.table
    groups, labels = by_colour(table.source, [label(facts) for facts in opened.sources])
    shares = 100 * table.trained / np.maximum(table.lengths, 1)
    if not len(table):
        return draw("What is learned", "No rows.", labels, [])
    plots = [
        by_length(table.lengths, groups, len(labels)),
        by_percent(shares, "Rows by share of trained tokens", "of a row's tokens are trained", groups, len(labels)),
    ]
    return draw("What is learned", _says(table.lengths, shares), labels, plots)


def _says(lengths: np.ndarray, shares: np.ndarray) -> str:
    """The picture in words, for those who do not see it."""
    return (
        f"{len(lengths):,} rows of {lengths.min():,} to {lengths.max():,} tokens, median {np.median(lengths):,.0f}; "
        f"of a row {shares.min():.0f} to {shares.max():.0f} % of the tokens are trained, median {np.median(shares):.0f} %."
    )

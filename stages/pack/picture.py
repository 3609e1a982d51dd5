"""A picture of the packing: how long the training rows are, and how full their bins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.bins import Bins
from pipeline.histogram import by_colour, by_length, by_percent, draw

_TITLE = "What is packed"


def draw_bins(bins: Bins, source: np.ndarray, sources: Sequence[Mapping[str, Any]], capacity: int) -> str:
    """An SVG document: spans by length, each source (of every row of the table) in its colour, and bins by fill."""
    if not len(bins):
        return draw(_TITLE, "No training rows.", [], [])
    groups, labels = by_colour(source[bins.row], [str(facts["name"]) for facts in sources])
    filled = 100 * bins.tokens_per_bin() / capacity
    plots = [
        by_length(bins.length, groups, len(labels)),
        by_percent(filled, "Bins by how full they are", f"of {capacity:,} tokens are filled", unit="bins"),
    ]
    return draw(_TITLE, _says(bins, filled), labels, plots)


def _says(bins: Bins, filled: np.ndarray) -> str:
    """The picture in words, for those who do not see it."""
    return (
        f"{len(bins.row):,} rows of {bins.length.min():,} to {bins.length.max():,} tokens, median {np.median(bins.length):,.0f}, "
        f"in {len(bins):,} bins, which are {filled.mean():.1f} % full."
    )

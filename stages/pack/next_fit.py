"""Next-fit: rows in their order, a new bin whenever the next row has no room."""

from __future__ import annotations

import numpy as np


def next_fit(lengths: np.ndarray, capacity: int) -> np.ndarray:
    """Assign each row to a bin; only the newest bin is ever filled.

    Args:
        lengths: int ``[rows]``, each in ``1..capacity``.
        capacity: tokens a bin holds.

    Returns:
        int64 ``[rows]``, the bin of each row, never falling from row to row; bins are numbered from 0 without gaps.
    """
    ends = np.cumsum(lengths)
    bins = np.empty(len(lengths), np.int64)
    first, opened = 0, 0
    while first < len(lengths):
        before = int(ends[first] - lengths[first])
        after = int(np.searchsorted(ends, before + capacity, "right"))
        bins[first:after] = opened
        first, opened = after, opened + 1
    return bins

"""Next-fit: rows in their order, a new bin whenever the next row has no room."""

from __future__ import annotations

import numpy as np


def next_fit(lengths: np.ndarray, capacity: int, most_rows: int | None = None) -> np.ndarray:
    """Assign each row to a bin; only the newest bin is ever filled.

    Args:
        lengths: int ``[rows]``, each in ``1..capacity``.
        capacity: tokens a bin holds.
        most_rows: rows a bin holds at most; ``None`` for any number.

    Returns:
        int64 ``[rows]``, the bin of each row, never falling from row to row; bins are numbered from 0 without gaps.
    """
    ends = np.cumsum(lengths)
    after = np.searchsorted(ends, ends - lengths + capacity, "right")  # of each row: the first that a bin from it on cannot hold
    if most_rows is not None:
        after = np.minimum(after, np.arange(most_rows, most_rows + len(lengths)))
    jumps, first, borders = after.tolist(), 0, []
    while first < len(jumps):
        first = jumps[first]
        borders.append(first)
    sizes: np.ndarray = np.diff(np.asarray([0, *borders], np.int64))
    return np.repeat(np.arange(len(sizes)), sizes)

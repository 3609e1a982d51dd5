"""Many short rows of similar length: best fit puts the long ones together, and no bin comes out even.

Here a bin takes rows as they are mixed in what is left, and two last ones that fill it to the token. The same mixture is used for
many bins at once, so the cost grows with the logarithm of the number of rows.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from stages.pack.best_fit import best_fit_decreasing
from stages.pack.sort import stable_order

FEWEST_ROWS_PER_BIN = 4
"""On average. With fewer, two rows that fill a bin are hard to find, and best fit is near the optimum or nothing is."""
_SHARE = 8  # of the bins that a mixture could fill, one in so many is filled: what is left stays as mixed as it was
_TAIL = 64  # bins for which nothing is drawn any more
_TRIES = 200  # in a row that find no two

Mixture = Counter[int]
"""Lengths of the rows of a bin, each with how many."""


def mixed_fit(lengths: np.ndarray, capacity: int, most_rows: int | None = None) -> np.ndarray:
    """Assign each row to a bin; nearly every bin is full to the token while there is a choice of rows.

    Args:
        lengths: int ``[rows]``, each in ``1..capacity``.
        capacity: tokens a bin holds.
        most_rows: rows a bin holds at most; ``None`` for any number.

    Returns:
        int64 ``[rows]``, the bin of each row; bins are numbered from 0 without gaps. What is drawn depends on the lengths alone.
    """
    order, left = stable_order(lengths), np.bincount(lengths, minlength=capacity + 1)
    begins = np.cumsum(left) - left  # of each length in ``order``, then of those that are left
    bins = np.full(len(lengths), -1, np.int64)
    random = np.random.Generator(np.random.PCG64(0))
    per_bin = max(2, capacity * len(lengths) // max(1, int(lengths.sum())))
    rows, opened, failed = len(lengths), 0, 0
    while rows > _TAIL * per_bin and failed < _TRIES:
        mixture = _draw(left, capacity, per_bin, random)
        size = mixture.total()
        most = min((int(left[length]) // copies for length, copies in mixture.items()), default=0)
        if most == 0 or size > (most_rows or size):
            failed += 1
            continue
        failed, times = 0, max(1, most // _SHARE)
        numbers = np.arange(opened, opened + times)
        for length, copies in mixture.items():
            begin = int(begins[length])
            bins[order[begin : begin + times * copies]] = np.repeat(numbers, copies)
            begins[length] += times * copies
            left[length] -= times * copies
        rows, opened = rows - times * size, opened + times
    rest = np.flatnonzero(bins < 0)
    bins[rest] = opened + best_fit_decreasing(lengths[rest], capacity, most_rows)
    return bins


def _draw(left: np.ndarray, capacity: int, per_bin: int, random: np.random.Generator) -> Mixture:
    """Lengths that fill a bin exactly: drawn like those that are left, but for the last two; empty where no two fill it.

    Args:
        left: int ``[capacity + 1]``, rows of each length.
    """
    sizes = np.flatnonzero(left)
    ends = np.cumsum(left[sizes])
    drawn = sizes[np.searchsorted(ends, random.integers(0, ends[-1], 2 * per_bin + 4), "right")]
    filled = np.cumsum(drawn)
    mean = int((sizes * left[sizes]).sum() // ends[-1])
    taken = int(np.searchsorted(filled, capacity - mean - mean // 2, "right"))  # room for two, give or take a half
    room = capacity - (int(filled[taken - 1]) if taken else 0)
    other = room - sizes
    partners = np.where(other >= 0, left[np.maximum(other, 0)], 0)
    pairs = np.where(other == sizes, left[sizes] // 2, np.minimum(left[sizes], partners))
    pairs[other == 0] = left[room] if room <= capacity else 0
    best = int(pairs.argmax())
    if pairs[best] == 0:
        return Counter()
    last = [length for length in (int(sizes[best]), int(other[best])) if length]
    return Counter([*drawn[:taken].tolist(), *last])

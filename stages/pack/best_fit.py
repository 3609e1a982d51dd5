"""Best-fit-decreasing over length classes.

Best fit depends on lengths alone, so rows of equal length and bins of equal free space are moved as classes: the cost
grows with the number of distinct lengths, not with the number of rows.

D. S. Johnson et al., "Worst-Case Performance Bounds for Simple One-Dimensional Packing Algorithms", SIAM J. Comput. 3 (1974).
"""

from __future__ import annotations

import bisect

import numpy as np

from stages.pack.sort import stable_order
from stages.pack.spread import spread_rows

_NEAR = 1e-3  # bins more than without a limit, so few that there is nothing to look for
_Bins = tuple[np.ndarray, int]
"""Numbers of bins, oldest first, and how many rows each of them holds."""


def best_fit_decreasing(lengths: np.ndarray, capacity: int, most_rows: int | None = None) -> np.ndarray:
    """Assign each row to a bin: longest rows first, each into the fullest bin that still takes it.

    Args:
        lengths: int ``[rows]``, each in ``1..capacity``.
        capacity: tokens a bin holds.
        most_rows: rows a bin holds at most; ``None`` for any number. Where it matters, short rows are spread over the bins.

    Returns:
        int64 ``[rows]``, the bin of each row; bins are numbered from 0 without gaps. Equal lengths are taken in row order.
    """
    bins = _fit(lengths, capacity, len(lengths))
    if most_rows is None or np.bincount(bins).max(initial=0) <= most_rows:
        return bins
    spread, left = spread_rows(lengths, bins, capacity, most_rows)
    spread[left] = _fit(lengths[left], capacity, most_rows) + bins.max() + 1
    if spread.max() < (1 + _NEAR) * bins.max():
        return spread
    in_turn = _fit(lengths, capacity, most_rows)
    return spread if spread.max() <= in_turn.max() else in_turn


def _fit(lengths: np.ndarray, capacity: int, limit: int) -> np.ndarray:
    """Best fit into bins of at most ``limit`` rows."""
    order = stable_order(capacity - lengths)
    counts = np.bincount(lengths)
    bins = np.empty(len(lengths), np.int64)  # of the rows in descending order
    free: dict[int, list[_Bins]] = {}
    spaces: list[int] = []
    opened, at = 0, 0
    for length in np.flatnonzero(counts)[::-1].tolist():
        end = at + int(counts[length])
        while at < end:
            found = bisect.bisect_left(spaces, length)
            if found < len(spaces):
                space = spaces[found]
                taken, rows = _take(free, spaces, space, end - at)
            else:
                space, rows = capacity, 0
                taken = np.arange(opened, opened + _bins_to_open(end - at, min(capacity // length, limit)))
                opened += len(taken)
            bins[at : at + len(taken)] = taken
            at += len(taken)
            if rows + 1 < limit:
                _put(free, spaces, space - length, (taken, rows + 1))
    assigned = np.empty_like(bins)
    assigned[order] = bins
    return assigned


def _bins_to_open(rows: int, rows_per_bin: int) -> int:
    """Bins that the remaining rows of one length need when they fill fresh bins one after the other."""
    return -(-rows // rows_per_bin)


def _take(free: dict[int, list[_Bins]], spaces: list[int], space: int, count: int) -> _Bins:
    """Up to ``count`` bins that have exactly ``space`` left, and their rows; those first that came to it first."""
    groups = free[space]
    group, rows = groups[0]
    taken, rest = group[:count], group[count:]
    if len(rest):
        groups[0] = rest, rows
    else:
        groups.pop(0)
    if not groups:
        del free[space]
        spaces.pop(bisect.bisect_left(spaces, space))
    return taken, rows


def _put(free: dict[int, list[_Bins]], spaces: list[int], space: int, bins: _Bins) -> None:
    if space == 0:
        return
    if space not in free:
        free[space] = []
        bisect.insort(spaces, space)
    free[space].append(bins)

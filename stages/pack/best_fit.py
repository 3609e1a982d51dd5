"""Best-fit-decreasing over length classes.

Best fit depends on lengths alone, so rows of equal length and bins of equal free space are moved as classes: the cost
grows with the number of distinct lengths, not with the number of rows.

D. S. Johnson et al., "Worst-Case Performance Bounds for Simple One-Dimensional Packing Algorithms", SIAM J. Comput. 3 (1974).
"""

from __future__ import annotations

import bisect

import numpy as np


def best_fit_decreasing(lengths: np.ndarray, capacity: int) -> np.ndarray:
    """Assign each row to a bin: longest rows first, each into the fullest bin that still holds it.

    Args:
        lengths: int ``[rows]``, each in ``1..capacity``.
        capacity: tokens a bin holds.

    Returns:
        int64 ``[rows]``, the bin of each row; bins are numbered from 0 without gaps. Equal lengths are taken in row order.
    """
    order = np.argsort(-lengths, kind="stable")
    descending = -lengths[order]
    bins = np.empty(len(lengths), np.int64)
    free: dict[int, list[np.ndarray]] = {}
    spaces: list[int] = []
    opened, at = 0, 0
    while at < len(order):
        length = -int(descending[at])
        end = int(np.searchsorted(descending, -length, "right"))
        while at < end:
            found = bisect.bisect_left(spaces, length)
            if found < len(spaces):
                space = spaces[found]
                taken = _take(free, spaces, space, end - at)
            else:
                space = capacity
                taken = np.arange(opened, opened + _bins_to_open(end - at, capacity // length))
                opened += len(taken)
            bins[order[at : at + len(taken)]] = taken
            at += len(taken)
            _put(free, spaces, space - length, taken)
    return bins


def _bins_to_open(rows: int, rows_per_bin: int) -> int:
    """Bins that the remaining rows of one length need when they fill fresh bins one after the other."""
    return -(-rows // rows_per_bin)


def _take(free: dict[int, list[np.ndarray]], spaces: list[int], space: int, count: int) -> np.ndarray:
    """Up to ``count`` bins that have exactly ``space`` left, oldest first."""
    groups = free[space]
    group = groups[0]
    taken, rest = group[:count], group[count:]
    if len(rest):
        groups[0] = rest
    else:
        groups.pop(0)
    if not groups:
        del free[space]
        spaces.pop(bisect.bisect_left(spaces, space))
    return taken


def _put(free: dict[int, list[np.ndarray]], spaces: list[int], space: int, bins: np.ndarray) -> None:
    if space == 0:
        return
    if space not in free:
        free[space] = []
        bisect.insort(spaces, space)
    free[space].append(bins)

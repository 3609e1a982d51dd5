"""A limit of rows in a bin, kept by spreading short rows.

Best fit takes the shortest rows last and puts them together, hundreds to a bin, beside bins of a few long ones. Where that is more than a
bin may hold, the rows of crowded and of roomy bins are dealt out anew, each into the emptiest: R. L. Graham, "Bounds on
Multiprocessing Timing Anomalies", SIAM J. Appl. Math. 17 (1969). It leaves bins equally full, with long and short rows in each.
"""

from __future__ import annotations

import heapq

import numpy as np

from stages.pack.sort import stable_order

_USED = 0.85  # of the limit, on average over the bins that are dealt out anew: bins differ


def spread_rows(lengths: np.ndarray, bins: np.ndarray, capacity: int, most_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Deal out the rows of bins with more than ``most_rows``, and of as many others as it takes.

    Args:
        lengths: int ``[rows]``.
        bins: int64 ``[rows]``, the bin of each, none over ``capacity``.

    Returns:
        ``bins`` changed so that none holds more than ``capacity`` and ``most_rows``, and the rows that found no room (-1 there).
    """
    bins = bins.copy()
    chosen = _chosen(lengths, bins, capacity, most_rows)
    is_chosen = np.zeros(int(bins.max()) + 1, bool)
    is_chosen[chosen] = True
    rows = np.flatnonzero(is_chosen[bins])
    rows = rows[stable_order(capacity - lengths[rows])]
    room = [(-capacity, number) for number in chosen.tolist()]
    held = dict.fromkeys(chosen.tolist(), 0)
    placed = []
    for length in lengths[rows].tolist():
        if not room or -room[0][0] < length:
            placed.append(-1)
            continue
        space, number = room[0]
        placed.append(number)
        held[number] += 1
        if held[number] < most_rows:
            heapq.heapreplace(room, (space + length, number))
        else:
            heapq.heappop(room)
    bins[rows] = placed
    return bins, np.flatnonzero(bins < 0)


def _chosen(lengths: np.ndarray, bins: np.ndarray, capacity: int, most_rows: int) -> np.ndarray:
    """Crowded bins, and those with the fewest rows among bins without a long one, until a bin has to hold few enough on average."""
    counts = np.bincount(bins)
    longest = np.zeros(len(counts), np.int64)
    np.maximum.at(longest, bins, lengths)
    crowded = np.flatnonzero(counts > most_rows)
    roomy = np.flatnonzero((counts <= most_rows) & (2 * longest <= capacity))
    roomy = roomy[np.argsort(counts[roomy], kind="stable")]
    together = counts[crowded].sum() + np.cumsum(counts[roomy])
    enough = together <= _USED * most_rows * (len(crowded) + np.arange(1, len(roomy) + 1))
    return np.sort(np.concatenate([crowded, roomy[: int(enough.argmax()) + 1 if enough.any() else len(roomy)]]))

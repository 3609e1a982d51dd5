"""Exact duplicates: rows with equal token ids and equal mask. An equal prompt with another answer is no duplicate."""

from __future__ import annotations

import numpy as np

from pipeline.kept import EXACT, KeptRows


def remove_duplicates(index: KeptRows, digests: np.ndarray, order: np.ndarray) -> None:
    """Keep the first of equal rows, by ``order``: int64, the rows that are looked at, first those that win.

    ``digests`` uint64 ``[rows, 2]`` identify the content of all rows.
    """
    rows = order[_by_digest(digests[order])]
    begins = np.ones(len(rows), bool)
    begins[1:] = (digests[rows[1:]] != digests[rows[:-1]]).any(axis=1)
    first = rows[begins][np.cumsum(begins) - 1]
    index.remove(rows[~begins], EXACT, first[~begins], 1.0)


def _by_digest(digests: np.ndarray) -> np.ndarray:
    """A stable order in which equal digests stand together. Their first halves decide, unless two differ only in the second."""
    order = np.argsort(digests[:, 0], kind="stable")
    ordered = digests[order]
    same_half = ordered[1:, 0] == ordered[:-1, 0]
    if (same_half & (ordered[1:, 1] != ordered[:-1, 1])).any():
        return np.lexsort((digests[:, 1], digests[:, 0]))
    return order

"""Exact duplicates: rows with equal token ids and equal mask. An equal prompt with another answer is no duplicate."""

from __future__ import annotations

import numpy as np

from pipeline.kept import KeptRows

REASON = "exact duplicate"


def find_duplicates(digests: np.ndarray, evaluation: np.ndarray) -> KeptRows:
    """Keep the first of equal rows, but an evaluation row before any training row, so that no training row is one.

    ``digests`` uint64 ``[rows, 2]`` identify the rows' content; ``evaluation`` bool ``[rows]`` says which come from test_datasets.
    """
    order = np.lexsort((np.arange(len(digests)), ~evaluation, digests[:, 1], digests[:, 0]))
    begins = np.ones(len(order), bool)
    begins[1:] = (digests[order[1:]] != digests[order[:-1]]).any(axis=1)
    first = np.flatnonzero(begins)[np.cumsum(begins) - 1]
    duplicate_of = np.full(len(digests), -1, np.int64)
    duplicate_of[order[~begins]] = order[first[~begins]]
    return KeptRows(duplicate_of < 0, duplicate_of, [None if row < 0 else REASON for row in duplicate_of.tolist()])

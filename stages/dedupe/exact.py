"""Exact duplicates: rows with equal token ids and equal mask. An equal prompt with another answer is no duplicate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.kept import KeptRows

REASON = "exact duplicate"


def find_duplicates(digests: Sequence[bytes], evaluation: Sequence[bool]) -> KeptRows:
    """Keep the first of equal rows, but an evaluation row before any training row, so that no training row is one.

    ``digests`` identify the rows' content; ``evaluation`` says which rows come from test_datasets.
    """
    order = sorted(range(len(digests)), key=lambda row: not evaluation[row])
    first: dict[bytes, int] = {}
    duplicate_of = np.full(len(digests), -1, np.int64)
    for row in order:
        kept = first.setdefault(digests[row], row)
        if kept != row:
            duplicate_of[row] = kept
    return KeptRows(duplicate_of < 0, duplicate_of, [None if row < 0 else REASON for row in duplicate_of])

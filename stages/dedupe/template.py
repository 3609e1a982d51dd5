"""n-grams that most rows of a dataset have: its template. That two rows share them says nothing about the rows.

A classification prompt of a hundred tokens with ten of text in it would otherwise make duplicates of different rows.
"""

from __future__ import annotations

import numpy as np

from pipeline.tokens import TokenTable
from stages.dedupe.hashing import HashSet
from stages.dedupe.ngrams import NGrams

SAMPLE = 2000
FEWEST = 20


def template_of(ngrams: NGrams, tokens: TokenTable, rows: np.ndarray, share: float) -> HashSet:
    """n-grams in more than ``share`` of the rows of one of the sources, looked up in some rows of each.

    ``rows`` are the rows to look at. The sample is the rows with the least digests: it does not depend on their order, and
    equal rows are in it once. Fewer than :data:`FEWEST` different rows have no template.
    """
    found = [np.zeros(0, np.uint64)]
    for source in np.unique(tokens.source[rows]) if share < 1 else ():
        own = rows[tokens.source[rows] == source]
        _, firsts = np.unique(tokens.digest[own, 0], return_index=True)
        sample = own[firsts[:SAMPLE]]
        if len(sample) >= FEWEST:
            hashes, counts = rows_with(ngrams, sample)
            found.append(hashes[counts > share * len(sample)])
    return HashSet(np.concatenate(found))


def rows_with(ngrams: NGrams, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct n-grams of ``rows``, uint64, and how many of the rows have each, int64."""
    sets = [ngrams.of_row(row) for row in rows.tolist()]
    hashes, counts = np.unique(np.concatenate([np.zeros(0, np.uint64), *sets]), return_counts=True)
    return hashes, counts

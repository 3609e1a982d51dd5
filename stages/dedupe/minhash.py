"""MinHash signatures and their bands (Broder 1997; Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, 3.4).

In numpy: rensa, the fastest library there is, makes signatures of hashes six times as fast, and then hands them over as lists
of Python integers, which makes up for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from pipeline.options.deduplication import RECALL
from stages.dedupe.hashing import mixed
from stages.dedupe.ngrams import NGrams

_BLOCK = 2**15
_MOST_THREADS = 8
"""Each holds some 40 MB, and Python itself, which only one can use at a time, takes a tenth of the work."""


def choose_bands(threshold: float, permutations: int) -> tuple[int, int]:
    """Bands and hashes in each: the most selective that find a pair at the threshold with a probability of :data:`RECALL`.

    A pair of similarity s agrees in all ``width`` hashes of one of ``bands`` bands with the probability
    1 - (1 - s^width)^bands, which grows with s.
    """
    widths = (width for width in range(permutations, 0, -1) if 1 - (1 - threshold**width) ** (permutations // width) >= RECALL)
    width = next(widths, 1)
    return permutations // width, width


def signatures(ngrams: NGrams, rows: np.ndarray, count: int, advance: Callable[[int], None], workers: int | None = None) -> np.ndarray:
    """uint32 ``[rows, count]``: equal in a column with a probability that is the rows' similarity.

    ``advance`` is told how many more rows are done. Threads share the rows, as many as there are cores; each writes rows of its
    own, so their number changes nothing.
    """
    made = np.empty((len(rows), count), np.uint32)
    factors = (mixed(np.arange(count)) >> np.uint64(32)).astype(np.uint32) | np.uint32(1)
    masks = (mixed(np.arange(count, 2 * count)) >> np.uint64(32)).astype(np.uint32)

    def sign(part: slice) -> int:
        hashes, offsets = ngrams.of(rows[part])
        _sign((hashes >> np.uint64(32)).astype(np.uint32), offsets, factors, masks, made[part])
        return int(part.stop - part.start)

    with ThreadPoolExecutor(workers or min(_MOST_THREADS, os.cpu_count() or 1)) as threads:
        for done in threads.map(sign, ngrams.chunks(rows)):
            advance(done)
    return made


def _sign(values: np.ndarray, offsets: np.ndarray, factors: np.ndarray, masks: np.ndarray, made: np.ndarray) -> None:
    """The least of each row's permuted ``values`` (uint32, evenly spread), for every permutation.

    Permutations are x -> (a x mod 2^32) xor b with an odd a. Blocks of rows stay in the cache of the processor.
    """
    start = 0
    while start < len(made):
        stop = max(start + 1, int(np.searchsorted(offsets, offsets[start] + _BLOCK, "right")) - 1)
        block, begins = values[offsets[start] : offsets[stop]], offsets[start:stop] - offsets[start]
        permuted = np.empty_like(block)
        for number, (factor, mask) in enumerate(zip(factors, masks, strict=True)):
            np.multiply(block, factor, out=permuted)
            np.bitwise_xor(permuted, mask, out=permuted)
            made[start:stop, number] = np.minimum.reduceat(permuted, begins)
        start = stop


def buckets(signed: np.ndarray, bands: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows that share a band with another row, as pairs (row, bucket), both int64, by row and then by bucket.

    ``signed`` as :func:`signatures` makes it. Most rows of most corpora share none, and cost no more.
    """
    rows, numbers, used = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], 0
    for band in range(bands):
        key = np.zeros(len(signed), np.uint64)
        for hashes in signed[:, band * width : (band + 1) * width].T:
            key = mixed(key ^ hashes)
        order = np.argsort(key, kind="stable")
        same = key[order[1:]] == key[order[:-1]]
        shared = np.flatnonzero(np.concatenate([[False], same]) | np.concatenate([same, [False]]))
        begins = np.concatenate([[False], same])[shared] == 0
        rows.append(order[shared])
        numbers.append(used + np.cumsum(begins) - 1)
        used += int(begins.sum())
    row, number = np.concatenate(rows), np.concatenate(numbers)
    by_row = np.argsort(row, kind="stable")
    return row[by_row], number[by_row]

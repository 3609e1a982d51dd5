"""Rows as sets of token n-grams, each n-gram as a 64-bit hash.

A row is the whole of it: prompt and answer, and of a pair both answers. Masks and labels are not looked at. Text that is
shorter than an n-gram counts as one.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from pipeline.tokens import TokenTable
from stages.dedupe.hashing import HashSet, mixed

CHUNK_TOKENS = 2**19
_REMEMBERED = 2**24
_BASE = 0x2545F4914F6CDD1D
_INVERSE = pow(_BASE, -1, 2**64)

Hashes = tuple[np.ndarray, np.ndarray]
"""uint64 ``[n-grams]`` of several rows, one after the other, and int64 ``[rows + 1]``: where each row's begin."""


class NGrams:
    """n-grams of the rows of a token table.

    Args:
        length: tokens of an n-gram.
        ignored: n-grams that do not count, except in rows that have no others.
    """

    def __init__(self, tokens: TokenTable, length: int, ignored: HashSet | None = None) -> None:
        self._tokens, self._length, self.ignored = tokens, length, ignored
        self._remembered: dict[int, np.ndarray] = {}
        self._room = _REMEMBERED

    def of(self, rows: np.ndarray) -> Hashes:
        """n-grams of ``rows``, in their order; one that a row has twice is there twice."""
        texts = [text for row in rows.tolist() for text in self._texts(row)]
        hashes, offsets = _hashes(texts, self._length)
        offsets = offsets[:: 2 if self._tokens.paired else 1]
        return _without(hashes, offsets, self.ignored) if self.ignored else (hashes, offsets)

    def of_row(self, row: int) -> np.ndarray:
        """uint64, ascending: the distinct n-grams of one row. Remembers what it made, and forgets all of it when that is too much."""
        if row not in self._remembered:
            made = np.unique(self.of(np.asarray([row]))[0])
            self._room -= len(made)
            if self._room < 0:
                self._remembered.clear()
                self._room = _REMEMBERED - len(made)
            self._remembered[row] = made
        return self._remembered[row]

    def _texts(self, row: int) -> tuple[np.ndarray, ...]:
        ids = self._tokens.ids(row)
        return (ids, self._tokens.rejected_ids(row)) if self._tokens.paired else (ids,)

    def chunks(self, rows: np.ndarray) -> Iterator[slice]:
        """Stretches of ``rows`` of about :data:`CHUNK_TOKENS` tokens: memory does not grow with their number."""
        ends = np.cumsum(self._tokens.longest[rows])
        start = 0
        while start < len(rows):
            before = int(ends[start - 1]) if start else 0
            stop = max(start + 1, int(np.searchsorted(ends, before + CHUNK_TOKENS, "right")))
            yield slice(start, stop)
            start = stop


def similarity(one: np.ndarray, other: np.ndarray) -> float:
    """Jaccard similarity of two sets, given as ascending distinct hashes: common n-grams over all."""
    common = count_common(one, other)
    return common / (len(one) + len(other) - common)


def count_common(one: np.ndarray, other: np.ndarray) -> int:
    """Size of the intersection of two ascending arrays of distinct values, neither empty."""
    places = np.minimum(np.searchsorted(one, other), len(one) - 1)
    return int(np.count_nonzero(one[places] == other))


def _hashes(texts: list[np.ndarray], length: int) -> Hashes:
    """n-grams of ``texts``.

    The hash of a window is the sum of its tokens' hashes times the powers of a base (mod 2^64), as differences of one running
    sum over all texts: the cost does not depend on the length of the windows.
    """
    sizes = np.asarray([len(text) for text in texts], np.int64)
    begins = np.cumsum(sizes) - sizes
    windows = np.maximum(sizes - length, 0) + 1
    offsets = np.concatenate([[0], np.cumsum(windows)])
    start = np.arange(offsets[-1]) + np.repeat(begins - offsets[:-1], windows)
    width = np.repeat(np.minimum(sizes, length), windows)
    powers, inverses = _powers(int(sizes.sum()))
    running = np.zeros(len(powers), np.uint64)
    np.cumsum(mixed(np.concatenate(texts)) * powers[1:], out=running[1:])
    sums = (running[start + width] - running[start]) * inverses[start]
    return mixed(sums + width.astype(np.uint64) * np.uint64(_BASE)), offsets


def _powers(size: int) -> tuple[np.ndarray, np.ndarray]:
    """The first ``size + 1`` powers of the base and of its inverse. Most chunks are about as long as each other."""
    powers, inverses = _all_powers(1 << size.bit_length())
    return powers[: size + 1], inverses[: size + 1]


@lru_cache(maxsize=2)
def _all_powers(size: int) -> tuple[np.ndarray, np.ndarray]:
    factors = np.ones((2, size), np.uint64)
    factors[0, 1:], factors[1, 1:] = _BASE, _INVERSE
    powers = np.multiply.accumulate(factors, axis=1)
    return powers[0], powers[1]


def _without(hashes: np.ndarray, offsets: np.ndarray, ignored: HashSet) -> Hashes:
    counted = np.ones(len(hashes), bool)
    counted[ignored.find(hashes)[0]] = False
    kept = np.add.reduceat(counted, offsets[:-1], dtype=np.int64)
    counted |= np.repeat(kept == 0, np.diff(offsets))
    kept = np.where(kept == 0, np.diff(offsets), kept)
    return hashes[counted], np.concatenate([[0], np.cumsum(kept)])

"""64-bit hashes as arrays, and fast membership in a set of them. No seed of the process and no library version has a say."""

from __future__ import annotations

import numpy as np

_BITS = 20


def mixed(values: np.ndarray) -> np.ndarray:
    """A bijection of uint64 after which every bit depends on every bit: the finaliser of SplitMix64 (Steele, Lea, Flood 2014)."""
    values = np.asarray(values, np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(values ^ (values >> np.uint64(31)))


class HashSet:
    """A set of hashes.

    Attributes:
        values: uint64 ``[size]``, ascending.
    """

    def __init__(self, hashes: np.ndarray) -> None:
        self.values: np.ndarray = np.unique(hashes)
        self._may_hold = np.zeros(2**_BITS, bool)
        self._may_hold[self.values >> np.uint64(64 - _BITS)] = True

    def __len__(self) -> int:
        return len(self.values)

    def find(self, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions in ``hashes`` of those in the set, and their numbers in :attr:`values`, both int64.

        A table of the first bits rules most hashes out: a search costs fifty times as much.
        """
        if not len(self.values):
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        likely = np.flatnonzero(self._may_hold[hashes >> np.uint64(64 - _BITS)])
        numbers = np.minimum(np.searchsorted(self.values, hashes[likely]), len(self.values) - 1)
        found = self.values[numbers] == hashes[likely]
        return likely[found], numbers[found]

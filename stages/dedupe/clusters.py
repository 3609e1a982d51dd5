"""Clusters of near duplicates: rows joined by any chain of similar ones, with union-find."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable


class UnionFind:
    """Disjoint sets of numbers, each named by its least member."""

    def __init__(self) -> None:
        self._parent: dict[int, int] = {}

    def find(self, one: int) -> int:
        """The name of the set that ``one`` is in."""
        parent = self._parent.setdefault(one, one)
        while parent != one:
            self._parent[one] = self._parent[parent]
            one, parent = parent, self._parent[parent]
        return one

    def join(self, one: int, other: int) -> None:
        """Make one set of two."""
        low, high = sorted((self.find(one), self.find(other)))
        self._parent[high] = low

    def sizes(self) -> dict[int, int]:
        """Members of each set, by its name, in the order of names."""
        return dict(sorted(Counter(self.find(one) for one in self._parent).items()))


def cluster_sizes(edges: Iterable[tuple[int, int, float]]) -> dict[int, int]:
    """Sizes of the clusters that ``edges`` (row, row, similarity) make, by the least row of each."""
    sets = UnionFind()
    for one, other, _ in edges:
        sets.join(one, other)
    return sets.sizes()

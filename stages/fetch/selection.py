"""Which rows of a split are taken: slices by position, and random parts that a seed decides."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.options.datasets import FetchedDataset


def is_random(entry: FetchedDataset) -> bool:
    """Whether the entry takes a random part of its rows."""
    return (entry.shards or 1) > 1 or (entry.weight or 1) < 1


def random_part(total: int, entry: FetchedDataset, seed: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which of ``total`` rows `shards` and `weight` take: a flag for each row.

    The rows are those of ``Dataset.shuffle(seed)`` followed by ``.shard(shards, shards_idx)``, and then, for `weight`, of
    another ``.shuffle(seed)`` and its first rows. They stay in the order of the source. Memory: 8 bytes a row.
    """
    taken = np.arange(total)
    if (entry.shards or 1) > 1:
        taken = np.random.default_rng(seed).permutation(total)[_shard(total, entry.shards or 1, entry.shards_idx or 0)]
    if entry.weight is not None and entry.weight < 1 and len(taken):
        taken = taken[np.random.default_rng(seed).permutation(len(taken))[: max(1, int(len(taken) * entry.weight))]]
    flags = np.zeros(total, np.bool_)
    flags[taken] = True
    return flags


def _shard(total: int, shards: int, index: int) -> slice:
    """Consecutive parts whose sizes differ by one at most, the longer ones first."""
    size, longer = divmod(total, shards)
    start = size * index + min(index, longer)
    return slice(start, start + size + (index < longer))

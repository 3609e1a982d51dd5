"""Tokens of every bin, and of all that a run has seen after so many steps: computed from the index, never counted along."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pipeline.bins import Bins
from pipeline.tokens import TokenTable
from stages.train.data import epoch_order
from stages.train.schedule import Schedule


@dataclass(frozen=True)
class BinCounts:
    """Attributes:
    tokens: int64 ``[bins]``.
    trained: int64 ``[bins]``, tokens that are labels.
    longest_span: tokens.
    largest_id: of all token ids.
    """

    tokens: np.ndarray
    trained: np.ndarray
    longest_span: int
    largest_id: int


def count_bins(bins: Bins, tokens: TokenTable) -> BinCounts:
    """Read every span once."""
    trained = np.zeros(len(bins.row), np.int64)
    largest = 0
    for number, (row, start, length) in enumerate(zip(bins.row.tolist(), bins.start.tolist(), bins.length.tolist(), strict=True)):
        trained[number] = np.count_nonzero(tokens.mask(row)[start + 1 : start + length])
        largest = max(largest, int(tokens.ids(row)[start : start + length].max(initial=0)))
    return BinCounts(_per_bin(bins, bins.length), _per_bin(bins, trained), int(bins.length.max(initial=0)), largest)


def _per_bin(bins: Bins, per_span: np.ndarray) -> np.ndarray:
    sums: np.ndarray = np.concatenate([np.zeros(1, np.int64), np.cumsum(per_span, dtype=np.int64)])
    return np.diff(sums[bins.offsets])


class SeenTokens:
    """Tokens and trained tokens that all processes together have seen after a number of steps."""

    def __init__(self, counts: BinCounts, schedule: Schedule, seed: int | None) -> None:
        self._schedule = schedule
        self._totals = (int(counts.tokens.sum()), int(counts.trained.sum()))

        @lru_cache(maxsize=1)
        def sums(epoch: int) -> tuple[np.ndarray, np.ndarray]:
            order = epoch_order(seed, epoch, len(counts.tokens))
            return np.cumsum(counts.tokens[order]), np.cumsum(counts.trained[order])

        self._sums = sums

    def after(self, step: int) -> tuple[int, int]:
        """(tokens, trained tokens) after ``step`` optimizer steps, counting every pass over a token."""
        epoch, steps = divmod(step, self._schedule.steps_per_epoch)
        whole = (epoch * self._totals[0], epoch * self._totals[1])
        if steps == 0:
            return whole
        tokens, trained = self._sums(epoch)
        last = min(steps * self._schedule.bins_per_step, len(tokens)) - 1
        return whole[0] + int(tokens[last]), whole[1] + int(trained[last])

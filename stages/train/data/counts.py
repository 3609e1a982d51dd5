"""Tokens of every bin, and of all that a run has seen after so many steps: computed from the index, never counted along."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pipeline.bins import Bins
from pipeline.order import BinOrder
from pipeline.tokens import TokenTable
from stages.train.loop.schedule import Schedule


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
    """Read the token files once. The first token of a span is no label, see :class:`stages.train.data.bins.BinDataset`.

    Where rows have two answers, both count, each with the prompt.
    """
    longest, largest = int(bins.length.max(initial=0)), int(tokens.largest_id[bins.row].max(initial=0))
    trained = tokens.count_trained(bins.row, bins.start + 1, bins.length - 1)
    if not tokens.paired:
        return BinCounts(bins.tokens_per_bin(), bins.sums(trained), longest, largest)
    trained = trained + tokens.count_trained(bins.row, bins.start + 1, bins.length - 1, rejected=True)
    both = np.minimum(tokens.lengths[bins.row], bins.length) + np.minimum(tokens.rejected_lengths[bins.row], bins.length)
    return BinCounts(bins.sums(both), bins.sums(trained), longest, largest)


class SeenTokens:
    """Tokens and trained tokens that all processes together have seen after a number of steps of ``order``."""

    def __init__(self, counts: BinCounts, schedule: Schedule, order: BinOrder) -> None:
        self._counts, self._schedule, self.order = counts, schedule, order
        self._every = int(counts.tokens.sum()), int(counts.trained.sum())
        self._known = [(0, 0)]
        self._sums = lru_cache(maxsize=1)(self._sums_of)

    def _sums_of(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        numbers = self.order.of_epoch(epoch)
        return np.cumsum(self._counts.tokens[numbers]), np.cumsum(self._counts.trained[numbers])

    def _before(self, epoch: int) -> tuple[int, int]:
        """The totals of all epochs before; where epochs leave out bins, each has one of its own."""
        if len(self.order) == len(self._counts.tokens):
            return epoch * self._every[0], epoch * self._every[1]
        while len(self._known) <= epoch:
            tokens, trained = self._sums_of(len(self._known) - 1)
            self._known.append((self._known[-1][0] + int(tokens[-1]), self._known[-1][1] + int(trained[-1])))
        return self._known[epoch]

    def of(self, step: int) -> int:
        """Tokens that the optimizer step ``step`` (from 1) saw."""
        return self.after(step)[0] - self.after(step - 1)[0]

    def after(self, step: int) -> tuple[int, int]:
        """(tokens, trained tokens) after ``step`` optimizer steps, counting every pass over a token."""
        epoch, steps = divmod(step, self._schedule.steps_per_epoch)
        whole = self._before(epoch)
        if steps == 0:
            return whole
        tokens, trained = self._sums(epoch)
        last = min(self._schedule.bins_after(steps), len(tokens)) - 1
        return whole[0] + int(tokens[last]), whole[1] + int(trained[last])

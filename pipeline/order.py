"""The order in which an epoch trains the bins: a pure function, so that a resumed run needs no state and a trace no log of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.generation import generates, prompts_at_once
from pipeline.options.views import TrainOptions
from pipeline.steps import accumulation_steps

_WINDOW = 50  # micro-batches that are sorted together: hardly any padding is left, and what an epoch begins with is still random


def epoch_order(seed: int | None, epoch: int, bins: int) -> np.ndarray:
    """Numbers of all bins in the order of an epoch (from 0), int64 ``[bins]``.

    Without a seed every epoch has the order of the plan.
    """
    if seed is None:
        return np.arange(bins)
    return _random(seed, epoch).permutation(bins)


@dataclass(frozen=True)
class BinOrder:
    """Which bins each epoch trains, in which order.

    Attributes:
        lengths: int ``[bins]``, tokens.
        seed: ``None`` keeps the order of the plan.
        similar: put so many bins of similar length next to each other: those of a micro-batch. ``None``: any.
        whole: leave out the last bins of an epoch that are fewer than so many.
    """

    lengths: np.ndarray
    seed: int | None
    similar: int | None = None
    whole: int = 1

    @classmethod
    def asked(cls, options: TrainOptions, lengths: np.ndarray, world_size: int) -> BinOrder:
        """As the options have it: shuffled anew in every epoch by the seed; a curriculum keeps the order of the plan."""
        return cls(
            lengths,
            None if options.curriculum_sampling else options.seed,
            options.micro_batch_size if options.group_by_length else None,
            _whole(options, world_size),
        )

    @classmethod
    def of(cls, facts: Mapping[str, Any], lengths: np.ndarray) -> BinOrder:
        """From what :meth:`facts` said."""
        return cls(lengths, facts["seed"], facts.get("similar"), facts.get("whole", 1))

    def facts(self) -> dict[str, Any]:
        """JSON values that, with the lengths, make the same order again."""
        more = {"similar": self.similar} if self.similar else {}
        return {"seed": self.seed} | more | ({"whole": self.whole} if self.whole > 1 else {})

    def __len__(self) -> int:
        """Bins of an epoch."""
        return len(self.lengths) - len(self.lengths) % self.whole

    def of_epoch(self, epoch: int) -> np.ndarray:
        """Numbers of the bins that an epoch (from 0) trains, int64, in their order."""
        order = epoch_order(self.seed, epoch, len(self.lengths))
        if self.similar is not None and self.seed is not None:
            order = _similar_together(order, self.lengths, self.similar, _random(self.seed, epoch, 1))
        return order[: len(self)]


def _whole(options: TrainOptions, world_size: int) -> int:
    if generates(options):
        return prompts_at_once(options, options.micro_batch_size * world_size * accumulation_steps(options, world_size))
    return options.micro_batch_size * world_size if options.dataloader_drop_last else 1


def _random(*seeds: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(list(seeds)))


def _similar_together(order: np.ndarray, lengths: np.ndarray, size: int, random: np.random.Generator) -> np.ndarray:
    """``order`` sorted by length in windows, and the windows' runs of ``size`` shuffled; what fills no run comes last."""
    full = len(order) - len(order) % size
    parts = [order[:0]]
    for first in range(0, full, size * _WINDOW):
        window = order[first : min(first + size * _WINDOW, full)]
        runs = window[np.argsort(lengths[window], kind="stable")].reshape(-1, size)
        parts.append(random.permutation(runs).reshape(-1))
    return np.concatenate([*parts, order[full:]])

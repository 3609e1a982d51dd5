"""Which optimizer step took which bin: computed, because the order of bins is a pure function of seed and epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from pipeline.bins import Bins
from pipeline.errors import RegrowError
from pipeline.order import BinOrder


@dataclass(frozen=True)
class TrainedOrder:
    """The order of a finished run. Steps count from 1, epochs and bins from 0.

    Attributes:
        epoch: int64 numbers of the bins of an epoch, in their order.
        bins_per_step: of the whole global batch; the last step of an epoch takes what is left.
        steps_per_epoch, steps: optimizer steps of an epoch and of the run.
        updates: steps that take the same bins one after the other.
    """

    epoch: Callable[[int], np.ndarray]
    bins_per_step: int
    steps_per_epoch: int
    steps: int
    updates: int = 1

    @classmethod
    def of(cls, content: Mapping[str, Any], bins: Bins) -> TrainedOrder:
        """As the manifest of data/trained says; ``bins`` are those of the plan."""
        order = content["order"]
        of_epoch = lru_cache(maxsize=8)(BinOrder.of(order, bins.tokens_per_bin()).of_epoch)
        return cls(of_epoch, order["bins_per_step"], order["steps_per_epoch"], int(content["steps"]), order.get("updates", 1))

    @property
    def epochs(self) -> int:
        """Epochs that were begun."""
        return math.ceil(self.steps / self.steps_per_epoch)

    def bins_of(self, step: int) -> np.ndarray:
        """Numbers of the bins that ``step`` took, int64, in their order.

        Raises:
            RegrowError: the run had no such step.
        """
        if not 1 <= step <= self.steps:
            raise RegrowError(f"There is no step {step}: the run had {self.steps}.", f"Name a step from 1 to {self.steps}.")
        epoch, at = divmod(step - 1, self.steps_per_epoch)
        first = at // self.updates * self.bins_per_step
        return self.epoch(epoch)[first : first + self.bins_per_step]

    def steps_of(self, number: int) -> Iterator[tuple[int, int]]:
        """(epoch, step) of every step that took the bin ``number``."""
        for epoch in range(self.epochs):
            found = np.flatnonzero(self.epoch(epoch) == number)  # none where dataloader_drop_last left it out
            for batch in (found // self.bins_per_step).tolist():
                for at in range(batch * self.updates, (batch + 1) * self.updates):
                    step = epoch * self.steps_per_epoch + at + 1
                    if at < self.steps_per_epoch and step <= self.steps:
                        yield epoch, step

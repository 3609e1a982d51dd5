"""Evaluation on the held-out bins while training: sums over tokens, so that batches, bins and processes do not change it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from stages.train.data.bins import EMPTY_BIN, IGNORED, BinDataset, next_labels

EVALUATED = ("eval_loss", "eval_perplexity", "eval_accuracy")
"""What an evaluation measures, per trained token of the held-out rows: mean cross-entropy, its exponential, share of best guesses."""

Forward = Callable[[dict[str, torch.Tensor]], tuple[torch.Tensor, torch.Tensor]]
"""A batch with labels to the sum of its losses and its logits."""


class Share(Sampler[int]):
    """The bins of one of several processes in the order of the plan; empty ones make all shares equally long."""

    def __init__(self, bins: int, rank: int, world_size: int) -> None:
        self._bins, self._rank, self._world_size = bins, rank, world_size

    def __len__(self) -> int:
        return math.ceil(self._bins / self._world_size)

    def __iter__(self) -> Iterator[int]:
        for number in range(self._rank, len(self) * self._world_size, self._world_size):
            yield number if number < self._bins else EMPTY_BIN


def held_out_loader(
    dataset: BinDataset, batch_size: int, rank: int, world_size: int, collate: Callable[[Any], dict[str, torch.Tensor]]
) -> DataLoader[Any]:
    """Batches of this process's bins."""
    share = Share(len(dataset), rank, world_size)
    # Without a generator of its own a loader draws from the global one, and dropout would be another after an evaluation.
    return DataLoader(dataset, batch_size=batch_size, sampler=share, collate_fn=collate, generator=torch.Generator())


def batch_sums(batch: dict[str, torch.Tensor], forward: Forward) -> torch.Tensor:
    """(sum of losses, right guesses, trained tokens) of a batch: float64 ``[3]``, on the CPU."""
    targets = next_labels(batch["labels"])
    trained = targets != IGNORED
    loss, logits = forward(dict(batch))
    guesses = (logits if logits.ndim == 2 else logits[trained]).argmax(-1)
    right = (guesses == targets[trained]).sum()
    return torch.stack([number.double().cpu() for number in (loss.detach(), right, trained.sum())])


def metrics_of(sums: torch.Tensor) -> dict[str, float]:
    """What :data:`EVALUATED` names, from the sums over all batches of all processes."""
    loss, right, tokens = (float(number) for number in sums)
    mean = loss / tokens
    return {"eval_loss": mean, "eval_perplexity": math.exp(mean) if mean < 700 else math.inf, "eval_accuracy": right / tokens}

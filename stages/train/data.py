"""Bins as training examples: what a bin holds, how bins make a batch, and in which order they come."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from pipeline.bins import Bins
from pipeline.tokens import TokenTable

IGNORED = -100
"""A label that is not trained (PyTorch's ``ignore_index``)."""

EMPTY_BIN = -1
"""A place in the order that holds no bin: fills up the last step of an epoch when several processes share it."""


class Example(TypedDict):
    """One bin, three int64 arrays ``[tokens]``."""

    input_ids: np.ndarray
    labels: np.ndarray
    position_ids: np.ndarray


class BinDataset(Dataset[Example]):
    """Bins by number. Position ids restart at every span; labels are ignored where the loss mask is 0.

    The first token of a span is never a label: what comes before it in the bin is another document.
    """

    def __init__(self, bins: Bins, tokens: TokenTable, pad_token_id: int) -> None:
        self._bins, self._tokens, self._pad = bins, tokens, pad_token_id

    def __len__(self) -> int:
        return len(self._bins)

    def __getitem__(self, number: int) -> Example:
        if number == EMPTY_BIN:
            return {"input_ids": np.array([self._pad]), "labels": np.array([IGNORED]), "position_ids": np.array([0])}
        parts = [self._span(row, slice(start, start + length)) for row, start, length in self._bins.spans(number)]
        ids, labels, positions = (np.concatenate(column) for column in zip(*parts, strict=True))
        return {"input_ids": ids, "labels": labels, "position_ids": positions}

    def _span(self, row: int, span: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        ids = self._tokens.ids(row)[span].astype(np.int64)
        labels = np.where(self._tokens.mask(row)[span] != 0, ids, IGNORED)
        labels[:1] = IGNORED
        return ids, labels, np.arange(len(ids))


@dataclass(frozen=True)
class Padding:
    """How long batches are: as long as their longest example, or longer."""

    least: int = 1
    multiple: int = 1

    def length(self, longest: int) -> int:
        """Tokens of a batch whose longest example has ``longest``."""
        return math.ceil(max(longest, self.least) / self.multiple) * self.multiple


class Collator:
    """Examples to a batch ``[examples, length]``, with no attention mask: the restarting position ids are the mask.

    transformers builds block-diagonal attention from position ids only where no attention mask is given and no cache is
    used. Padding has label -100 and position 0, so that every pad is a document of its own.
    """

    def __init__(self, pad_token_id: int, *, select_logits: bool, padding: Padding = Padding()) -> None:
        self._pad, self._select_logits, self._padding = pad_token_id, select_logits, padding

    def __call__(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        length = self._padding.length(max(len(example["input_ids"]) for example in examples))
        batch = {
            "input_ids": _stack([example["input_ids"] for example in examples], length, self._pad),
            "labels": _stack([example["labels"] for example in examples], length, IGNORED),
            "position_ids": _stack([example["position_ids"] for example in examples], length, 0),
        }
        if self._select_logits:
            batch["logits_to_keep"] = next_labels(batch["labels"]) != IGNORED
        return batch


def _stack(arrays: Sequence[np.ndarray], length: int, filling: int) -> torch.Tensor:
    stacked = np.full((len(arrays), length), filling, np.int64)
    for line, array in zip(stacked, arrays, strict=True):
        line[: len(array)] = array
    return torch.from_numpy(stacked)


def next_labels(labels: torch.Tensor) -> torch.Tensor:
    """The label that each position predicts, ``[batch, tokens]``: its successor's, and none at the end."""
    return torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED)


def epoch_order(seed: int | None, epoch: int, bins: int) -> np.ndarray:
    """Numbers of all bins in the order of an epoch, int64 ``[bins]``: a pure function, so a resumed run needs no state.

    Without a seed every epoch has the order of the plan.
    """
    if seed is None:
        return np.arange(bins)
    return np.random.Generator(np.random.PCG64([seed, epoch])).permutation(bins)


class EpochOrder(Sampler[int]):
    """The order of the epoch that ``epoch`` names, filled up with empty bins to a multiple of ``multiple``."""

    def __init__(self, seed: int | None, bins: int, multiple: int) -> None:
        self._seed, self._bins, self._multiple = seed, bins, multiple
        self.epoch = 0

    def __len__(self) -> int:
        return math.ceil(self._bins / self._multiple) * self._multiple

    def __iter__(self) -> Iterator[int]:
        yield from epoch_order(self._seed, self.epoch, self._bins).tolist()
        yield from [EMPTY_BIN] * (len(self) - self._bins)

"""Bins as training examples: what a bin holds, how bins make a batch, and in which order they come."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from pipeline.bins import Bins
from pipeline.order import BinOrder
from pipeline.tokens import TokenTable
from stages.train.attention.masks import attention_mask
from stages.train.attention.varlen import find_documents

IGNORED = -100
"""A label that is not trained (PyTorch's ``ignore_index``)."""

EMPTY_BIN = -1
"""A place in the order that holds no bin: fills up the last step of an epoch when several processes share it."""


class Example(TypedDict):
    """One bin, three int64 arrays ``[tokens]``; where positions skip, also the tokens of each span, int32 ``[spans]``."""

    input_ids: np.ndarray
    labels: np.ndarray
    position_ids: np.ndarray
    seq_lengths: NotRequired[np.ndarray]


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
        ids, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
        example: Example = {"input_ids": ids, "labels": labels, "position_ids": self._bins.position_ids(number)}
        if self._bins.skips is not None:
            example["seq_lengths"] = self._bins.seq_lengths(number)
        return example

    def _span(self, row: int, span: slice) -> tuple[np.ndarray, np.ndarray]:
        ids = self._tokens.ids(row)[span].astype(np.int64)
        labels = np.where(self._tokens.mask(row)[span] != 0, ids, IGNORED)
        labels[:1] = IGNORED
        return ids, labels


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
    used. Padding has label -100 and position 0, so that every pad is a document of its own. Where positions skip inside
    spans they say nothing of borders, and the mask is given (:func:`stages.train.attention.masks.attention_mask`).

    ``joined``: all examples one after the other in one row, ``[1, length]``, instead of a row each.
    ``tell_documents``: also where documents begin and how long the longest is, by the names that transformers gives to flash
    attention: code that is compiled cannot find out.
    """

    def __init__(
        self, pad_token_id: int, *, select_logits: bool, padding: Padding = Padding(), joined: bool = False, tell_documents: bool = False
    ) -> None:
        self._pad, self._select_logits, self._padding = pad_token_id, select_logits, padding
        self.joined, self._tell_documents = joined, tell_documents

    def __call__(self, examples: Sequence[Example]) -> dict[str, Any]:
        rows = [_join(examples)] if self.joined else examples
        length = self._padding.length(max(len(row["input_ids"]) for row in rows))
        batch = {
            "input_ids": stack([row["input_ids"] for row in rows], length, self._pad),
            "labels": stack([row["labels"] for row in rows], length, IGNORED),
            "position_ids": stack([row["position_ids"] for row in rows], length, 0),
        }
        if any("seq_lengths" in row for row in rows):
            batch["attention_mask"] = attention_mask([_seq_lengths(row) for row in rows], length)
        if self._select_logits:
            batch["logits_to_keep"] = next_labels(batch["labels"]) != IGNORED
        if self._tell_documents and "attention_mask" not in batch:
            found = find_documents(batch["position_ids"])
            batch |= {
                name: value
                for side in "qk"
                for name, value in ((f"cu_seq_lens_{side}", found.borders), (f"max_length_{side}", found.longest))
            }
        return batch


def single_bins(dataset: BinDataset) -> Iterator[dict[str, torch.Tensor]]:
    """One bin after the other, in the order of the plan, each a batch ``[1, tokens]`` without padding."""
    collate = Collator(0, select_logits=False)
    yield from (collate([dataset[number]]) for number in range(len(dataset)))


def _join(examples: Sequence[Example]) -> Example:
    joined: Example = {
        "input_ids": np.concatenate([example["input_ids"] for example in examples]),
        "labels": np.concatenate([example["labels"] for example in examples]),
        "position_ids": np.concatenate([example["position_ids"] for example in examples]),
    }
    if any("seq_lengths" in example for example in examples):
        joined["seq_lengths"] = np.concatenate([_seq_lengths(example) for example in examples])
    return joined


def _seq_lengths(example: Example) -> np.ndarray:
    """An empty bin is one document."""
    return example["seq_lengths"] if "seq_lengths" in example else np.array([len(example["input_ids"])])


def stack(arrays: Sequence[np.ndarray], length: int, filling: int) -> torch.Tensor:
    """int64 ``[arrays, length]``, filled up on the right."""
    stacked = np.full((len(arrays), length), filling, np.int64)
    for line, array in zip(stacked, arrays, strict=True):
        line[: len(array)] = array
    return torch.from_numpy(stacked)


def next_labels(labels: torch.Tensor) -> torch.Tensor:
    """The label that each position predicts, ``[batch, tokens]``: its successor's, and none at the end."""
    return torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED)


class EpochOrder(Sampler[int]):
    """The order of the epoch that ``epoch`` names, filled up with empty bins to a multiple of ``multiple``."""

    def __init__(self, order: BinOrder, multiple: int) -> None:
        self._order, self._multiple = order, multiple
        self.epoch = 0

    def __len__(self) -> int:
        return math.ceil(len(self._order) / self._multiple) * self._multiple

    def __iter__(self) -> Iterator[int]:
        yield from self._order.of_epoch(self.epoch).tolist()
        yield from [EMPTY_BIN] * (len(self) - len(self._order))

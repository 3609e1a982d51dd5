"""Preferences to the batches that TRL's losses take. Rows are padded on the right; ids and masks are those of data/tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from stages.train.data.bins import IGNORED, Padding, stack
from stages.train.preference.rows import Answer, Feedback, Pair

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Pads:
    """Which token fills a batch up, and how far."""

    token: int
    padding: Padding

    def ids(self, answers: Sequence[Answer]) -> Batch:
        """``input_ids`` and ``attention_mask``, int64 ``[answers, length]``."""
        length = self._length(answers)
        attended = [np.ones(len(answer.ids), np.int64) for answer in answers]
        return {
            "input_ids": stack([answer.ids for answer in answers], length, self.token),
            "attention_mask": stack(attended, length, 0),
        }

    def masks(self, answers: Sequence[Answer]) -> torch.Tensor:
        """1 where an answer is, int64 ``[answers, length]``."""
        return stack([answer.mask for answer in answers], self._length(answers), 0)

    def labels(self, answers: Sequence[Answer]) -> torch.Tensor:
        """The ids of the answers, -100 elsewhere, int64 ``[answers, length]``."""
        return stack([np.where(answer.mask, answer.ids, IGNORED) for answer in answers], self._length(answers), IGNORED)

    def _length(self, answers: Sequence[Answer]) -> int:
        return self.padding.length(max(len(answer.ids) for answer in answers))


@dataclass(frozen=True)
class CollatePairs:
    """DPO: all chosen answers, then all rejected ones, ``[2 * pairs, length]``."""

    pads: Pads

    def __call__(self, pairs: Sequence[Pair]) -> Batch:
        answers = [*(pair.chosen for pair in pairs), *(pair.rejected for pair in pairs)]
        batch = self.pads.ids(answers) | {"completion_mask": self.pads.masks(answers)}
        if pairs[0].reference is not None:
            known = torch.from_numpy(np.stack([pair.reference for pair in pairs if pair.reference is not None]))
            batch |= {"ref_chosen_logps": known[:, 0], "ref_rejected_logps": known[:, 1]}
        return batch


@dataclass(frozen=True)
class CollateScored:
    """Reward models: the same rows, which are scored whole."""

    pads: Pads

    def __call__(self, pairs: Sequence[Pair]) -> Batch:
        return self.pads.ids([*(pair.chosen for pair in pairs), *(pair.rejected for pair in pairs)])


@dataclass(frozen=True)
class CollateOdds:
    """ORPO and CPO: chosen and rejected answers apart, each ``[pairs, length]``."""

    pads: Pads

    def __call__(self, pairs: Sequence[Pair]) -> Batch:
        sides = {"chosen": [pair.chosen for pair in pairs], "rejected": [pair.rejected for pair in pairs]}
        batch: Batch = {}
        for side, answers in sides.items():
            batch |= {f"{side}_{name}": tensor for name, tensor in self.pads.ids(answers).items()}
            batch[f"{side}_labels"] = self.pads.labels(answers)
        return batch


@dataclass(frozen=True)
class CollateFeedback:
    """KTO: answers, and prompts with an answer to another (``KL_``), ``[rows, length]``; ``label`` ``[rows]`` says what is wanted."""

    pads: Pads

    def __call__(self, rows: Sequence[Feedback]) -> Batch:
        answers, mismatched = [row.answer for row in rows], [row.mismatched for row in rows]
        batch = self.pads.ids(answers) | {"completion_mask": self.pads.masks(answers)}
        batch |= {f"KL_{name}": tensor for name, tensor in self.pads.ids(mismatched).items()}
        return batch | {"KL_completion_mask": self.pads.masks(mismatched), "label": torch.tensor([row.wanted for row in rows])}

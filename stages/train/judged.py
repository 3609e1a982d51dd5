"""Models that judge steps: each marked token of a row is where a step ends, and its label says whether the step is right."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional

from pipeline.options.views import TrainOptions
from stages.train.data.bins import IGNORED, BinDataset
from stages.train.loss import Loss
from stages.train.trainer import BinTrainer

JUDGED = ("eval_loss", "eval_accuracy")
"""What an evaluation measures, per judged step of the held-out rows: mean cross-entropy, share of right judgements."""


class StepDataset(BinDataset):
    """Bins whose labels are judgements, at the tokens that they belong to."""

    def _span(self, row: int, span: slice) -> tuple[np.ndarray, np.ndarray]:
        mask = self._tokens.mask(row)
        labels = np.full(len(mask), IGNORED, np.int64)
        labels[mask != 0] = self._tokens.labels(row)[: int(np.count_nonzero(mask))]
        return self._tokens.ids(row)[span].astype(np.int64), labels[span]


def step_loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int) -> torch.Tensor:
    """Sum of the cross-entropies of a micro-batch over the judged steps of the global batch: a scalar in fp32.

    Args:
        outputs: with ``logits`` ``[batch, tokens, 2]``.
        labels: ``[batch, tokens]``; a judgement stands at its own token.
        num_items_in_batch: judged steps of all micro-batches and processes of the step.
    """
    judged = labels != IGNORED
    loss = functional.cross_entropy(outputs.logits[judged].float(), labels[judged], reduction="sum")
    return loss / torch.as_tensor(num_items_in_batch, device=loss.device).clamp(min=1)


class StepTrainer(BinTrainer):
    """Trains a model that judges steps."""

    def choose_loss(self, model: Any, options: TrainOptions) -> Loss:
        """See :func:`step_loss`."""
        return step_loss

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """See :data:`JUDGED`."""
        model: Any = self.model
        model.eval()
        sums = torch.zeros(3, dtype=torch.float64)
        for batch in self.get_eval_dataloader():
            inputs = self._prepare_inputs(batch)
            judged = inputs["labels"] != IGNORED
            loss, logits = self._summed_loss(model, dict(inputs))
            right = (logits[judged].argmax(-1) == inputs["labels"][judged]).sum()
            sums += torch.stack([number.double().cpu() for number in (loss, right, judged.sum())])
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        loss_sum, right_sum, steps = self.over_processes(sums).tolist()
        return {"eval_loss": loss_sum / steps, "eval_accuracy": right_sum / steps}

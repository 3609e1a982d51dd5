"""Cross-entropy of the trained tokens, divided by how many there are in the whole global batch."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch.nn import functional

from stages.train.data import IGNORED, next_labels


def selects_logits(model: Any) -> bool:
    """Whether the model computes logits of chosen positions only.

    Most of a bin can be prompt, and the output head costs more than a layer: it is computed where a token is trained.
    """
    return "logits_to_keep" in inspect.signature(model.forward).parameters


def token_loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int) -> torch.Tensor:
    """Sum of the cross-entropies of a micro-batch over the trained tokens of the global batch: a scalar in fp32.

    Dividing by the count of the global batch makes gradient accumulation, several processes and the layout of bins
    equal to one large batch. A batch with nothing to train has loss 0.

    Args:
        outputs: with ``logits`` ``[trained, vocabulary]``, or ``[batch, tokens, vocabulary]`` from a model that cannot select.
        labels: ``[batch, tokens]``, not shifted.
        num_items_in_batch: trained tokens of all micro-batches and processes of the step.
    """
    targets = next_labels(labels)
    trained = targets != IGNORED
    logits = outputs.logits if outputs.logits.ndim == 2 else outputs.logits[trained]
    loss = functional.cross_entropy(logits.float(), targets[trained], reduction="sum")
    return loss / torch.as_tensor(num_items_in_batch, device=loss.device).clamp(min=1)

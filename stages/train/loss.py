"""Cross-entropy of the trained tokens, divided by how many there are in the whole global batch."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from pipeline.errors import RegrowError
from pipeline.options.views import TrainOptions
from stages.train.data.bins import IGNORED, next_labels
from stages.train.model.precision import as_in_training


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


_WEIGHTS = ("router_aux_loss_coef", "aux_loss_coef")
"""What models call the weight of the loss of unevenly used experts; their config has it."""

Loss = Callable[[Any, torch.Tensor, torch.Tensor | int], torch.Tensor]


def choose_loss(model: Any, options: TrainOptions) -> Loss:
    """`token_loss`, over all logits or in pieces; where the model computes one of unevenly used experts, with that.

    Raises:
        RegrowError: the model's logits cannot be computed in pieces, or its routers would get no gradient.
    """
    loss: Loss = token_loss
    if options.chunked_cross_entropy:
        with as_in_training(options, model.device):
            loss = LossInPieces(model, options.chunked_cross_entropy_num_chunks)
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if not balances_experts(base):
        return loss
    if options.gradient_checkpointing and (options.gradient_checkpointing_kwargs or {}).get("use_reentrant"):
        raise RegrowError(
            f"gradient_checkpointing_kwargs.use_reentrant: true leaves no gradient for the routers of {type(base).__name__}, "
            "whose config has output_router_logits: true.",
            "Write use_reentrant: false, or overrides_of_model_config: {output_router_logits: false}.",
        )
    return BalancedLoss(loss, next(getattr(base, name) for name in _WEIGHTS if hasattr(base, name)))


def balances_experts(model: Any) -> bool:
    """Whether the model computes a loss of unevenly used experts: its config has ``output_router_logits: true``."""
    asked = getattr(model.config.get_text_config(), "output_router_logits", False)
    return bool(asked) and any(hasattr(model, name) for name in _WEIGHTS)


class BalancedLoss:
    """``loss`` plus the weighted loss of unevenly used experts, of which a step takes the mean over its trained tokens.

    Only training has it: an evaluation measures the text. Models add it themselves only where they compute the whole loss.
    """

    def __init__(self, loss: Loss, weight: float) -> None:
        self._loss, self._weight = loss, weight

    def __call__(self, outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int) -> torch.Tensor:
        """See :func:`token_loss`; ``outputs`` have ``aux_loss`` too, of a micro-batch."""
        loss = self._loss(outputs, labels, num_items_in_batch)
        unevenness = outputs.aux_loss
        if not torch.is_grad_enabled() or not isinstance(unevenness, torch.Tensor):  # 0 where no layer has experts
            return loss
        share = (next_labels(labels) != IGNORED).sum() / torch.as_tensor(num_items_in_batch, device=loss.device).clamp(min=1)
        return loss + self._weight * unevenness.to(loss.device) * share


class LossInPieces:
    """`token_loss` over pieces of the trained tokens: only the logits of one piece exist at a time, and again for its gradient.

    While the model is trained its output head hands on the hidden states, and the loss calls the head for piece after piece.
    The head's forward is replaced for that: a hook of torch's could not keep it from computing.

    Raises:
        RegrowError: the model does more to its logits than its head does.
    """

    def __init__(self, model: Any, pieces: int) -> None:
        self._head, self._pieces, self._skipped = model.get_output_embeddings(), pieces, False
        self._compute: Callable[[torch.Tensor], torch.Tensor] = self._head.forward
        self._head.forward = self._forward
        with torch.compiler.set_stance("force_eager"):  # nothing is compiled for a few tokens
            self._check(model)

    def __call__(self, outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int) -> torch.Tensor:
        """See :func:`token_loss`; ``logits`` of a model in training are hidden states ``[…, width]``."""
        if not self._skips():
            return token_loss(outputs, labels, num_items_in_batch)
        targets = next_labels(labels)
        trained = targets != IGNORED
        hidden = outputs.logits if outputs.logits.ndim == 2 else outputs.logits[trained]
        loss = torch.zeros((), device=hidden.device)
        for part, wanted in zip(hidden.chunk(self._pieces), targets[trained].chunk(self._pieces), strict=True):
            loss = loss + checkpoint(self._piece, part, wanted, use_reentrant=False)
        return loss / torch.as_tensor(num_items_in_batch, device=loss.device).clamp(min=1)

    def _piece(self, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        with torch.autocast(hidden.device.type, self._autocast or torch.bfloat16, enabled=self._autocast is not None):
            logits = self._compute(hidden)
        return functional.cross_entropy(logits.float(), targets, reduction="sum")

    def _skips(self) -> bool:
        return self._skipped or (self._head.training and torch.is_grad_enabled())

    def _forward(self, hidden: torch.Tensor) -> torch.Tensor:
        if not self._skips():
            return self._compute(hidden)
        # The loss is computed outside of the model, where autocast is over.
        kind = hidden.device.type
        self._autocast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        return hidden

    @torch.no_grad()
    def _check(self, model: Any) -> None:
        ids = torch.arange(1, 4, device=model.device)[None]  # a padding token's embedding may be zeros, which tell nothing
        was_training = model.training
        compute, usual = self._compute, model.eval()(input_ids=ids, use_cache=False).logits
        # Logits of up to 100: a small model's do not reach the cap that some put on them, and would be left as they are.
        enlarged = 100 / usual.abs().max()
        self._compute = lambda hidden: compute(hidden) * enlarged
        expected = model(input_ids=ids, use_cache=False).logits
        self._skipped = True
        found = self._compute(model(input_ids=ids, use_cache=False).logits)
        self._skipped, self._compute = False, compute
        model.train(was_training)
        if not torch.allclose(found, expected, rtol=1e-2, atol=1e-2 * float(expected.abs().max())):
            raise RegrowError(
                f"chunked_cross_entropy: {type(model).__name__} does more to its logits than its output head.",
                "Set chunked_cross_entropy: false; gradient_checkpointing and a smaller micro_batch_size save memory too.",
            )

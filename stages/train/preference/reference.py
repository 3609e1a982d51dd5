"""The reference that a model is held to: itself, as it was before the first step.

TRL would load it again by the name in its configuration, which is not the model that is trained once that was resized or got an
adapter. Here it is never loaded: it is the model with its adapter switched off, where the adapter begins as nothing, or a copy.
"""

from __future__ import annotations

from contextlib import nullcontext
from copy import deepcopy
from typing import Any

import torch


class Reference(torch.nn.Module):
    """The model itself, without dropout or noise, and with ``adapter: false`` without its adapter.

    Right only before training, or while nothing but the adapter is trained.
    """

    def __init__(self, model: Any, *, adapter: bool) -> None:
        super().__init__()
        self.config = model.config
        self._model = (model,)  # in a tuple it is no part of this module, and not moved, wrapped or counted with it
        self._adapter = adapter or not hasattr(model, "disable_adapter")

    @torch.no_grad()
    def forward(self, **inputs: Any) -> Any:
        """What the model makes of ``inputs``."""
        (model,) = self._model
        training = model.training
        model.eval()
        try:
            with nullcontext() if self._adapter else model.disable_adapter():
                return model(**inputs)
        finally:
            model.train(training)


def reference_of(model: Any) -> torch.nn.Module:
    """The reference for ``model``, which has not been trained yet."""
    if hasattr(model, "disable_adapter") and _begins_as_nothing(model):
        return Reference(model, adapter=False)
    copy = deepcopy(model).eval().requires_grad_(False)
    # The layers of an adapter are in the base model; what is around it would be in TRL's way.
    plain: torch.nn.Module = copy.get_base_model() if hasattr(copy, "get_base_model") else copy
    return plain


def _begins_as_nothing(model: Any) -> bool:
    """Whether every pair of the adapter's matrices has a product of zero."""
    from peft.tuners.lora import LoraLayer

    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    pairs = [(layer.lora_A, layer.lora_B) for layer in layers] + [(layer.lora_embedding_A, layer.lora_embedding_B) for layer in layers]
    factors = [(_numbers(first[name]), _numbers(second[name])) for first, second in pairs for name in first]
    return all(not (a.any() and b.any()) for a, b in factors)


def _numbers(factor: Any) -> torch.Tensor:
    numbers: Any = factor.weight if isinstance(factor, torch.nn.Module) else factor
    return torch.as_tensor(numbers.detach())


def without_dropout(model: torch.nn.Module) -> None:
    """Switch off the base model's own dropout: noise in one of two probabilities would be taken for a preference.

    ``lora_dropout`` stays as it was asked for.
    """
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Dropout) and ".lora_dropout." not in name:
            module.p = 0.0

"""ReLoRA (arXiv 2307.05695): at every restart the adapter goes into the weights and a new one begins.

A restart happens before the first step after a multiple of ``jagged_restart_steps``, so that a checkpoint taken at that step
still holds the old adapter and a resumed run does the restart itself. Checkpoints hold the weights under the adapter too.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from pipeline.errors import RegrowError
from pipeline.options.views import TrainOptions

FILE = "relora.safetensors"
"""In a checkpoint: the base weights under the adapter, as restarts have left them."""


class ReLoRA(TrainerCallback):
    """Restarts, each before the first step after a multiple of ``jagged_restart_steps``."""

    def __init__(self, model: Any, options: TrainOptions) -> None:
        self._layers = list(_layers(model).values())
        self._every = int(options.jagged_restart_steps or 0)
        self._ratio, self._on_cpu, self._seed = options.relora_prune_ratio, options.relora_cpu_offload, options.seed
        self._gaussian = options.peft_init_lora_weights == "gaussian"

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **keywords: Any) -> None:
        if state.global_step and state.global_step % self._every == 0:
            self._restart(state.global_step // self._every, keywords["optimizer"])

    @torch.no_grad()
    def _restart(self, number: int, optimizer: Any) -> None:
        generator = torch.Generator().manual_seed(_seed(self._seed, number))
        states = getattr(optimizer, "optimizer", optimizer).state
        for layer in self._layers:
            weight = layer.get_base_layer().weight
            weight.data += delta(layer, on_cpu=self._on_cpu).to(weight)
            _begin_anew(layer, generator, gaussian=self._gaussian)
            for parameter in _factors(layer):
                prune(states.get(parameter, {}), parameter.shape, self._ratio)


def save_base(model: Any, folder: Path) -> None:
    """Put the weights under the adapter into a checkpoint."""
    save_file({name: layer.get_base_layer().weight.detach().contiguous() for name, layer in _layers(model).items()}, folder / FILE)


def load_base(model: Any, folder: Path) -> None:
    """Take them from there.

    Raises:
        RegrowError: the checkpoint has none.
    """
    if not (folder / FILE).exists():
        raise RegrowError(f"{folder / FILE} is missing: this checkpoint was not taken with relora.", "Remove it, or train without relora.")
    weights = load_file(folder / FILE)
    for name, layer in _layers(model).items():
        layer.get_base_layer().weight.data.copy_(weights[name])


def delta(layer: Any, *, on_cpu: bool) -> Tensor:
    """What the adapter adds to a layer's weight, in the layer's own layout."""
    if not on_cpu:
        update: Tensor = layer.get_delta_weight("default")
        return update
    a, b = (factor.detach().cpu().float() for factor in _factors(layer))
    product = b @ a
    transposed = len(layer.lora_A) == 0 or layer.fan_in_fan_out
    return (product.T if transposed else product) * float(layer.scaling["default"])


def prune(state: dict[str, Any], shape: torch.Size, ratio: float) -> None:
    """Set the smallest ``ratio`` of each moment to zero, by magnitude."""
    for value in state.values():
        if isinstance(value, Tensor) and value.shape == shape and (cut := int(ratio * value.numel())):
            magnitude = value.abs()
            value[magnitude <= magnitude.flatten().kthvalue(cut).values] = 0


def _layers(model: Any) -> dict[str, Any]:
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}


def _factors(layer: Any) -> tuple[Tensor, Tensor]:
    if len(layer.lora_A):
        return layer.lora_A["default"].weight, layer.lora_B["default"].weight
    return layer.lora_embedding_A["default"], layer.lora_embedding_B["default"]


def _begin_anew(layer: Any, generator: torch.Generator, *, gaussian: bool) -> None:
    """As PEFT begins: one factor random, the other zero; drawn on the CPU, so that every device begins alike."""
    a, b = _factors(layer)
    zero, drawn = (b, a) if len(layer.lora_A) else (a, b)
    fresh = torch.empty(drawn.shape)
    if not len(layer.lora_A):
        fresh.normal_(generator=generator)
    elif gaussian:
        fresh.normal_(std=1 / layer.r["default"], generator=generator)
    else:
        torch.nn.init.kaiming_uniform_(fresh, a=math.sqrt(5), generator=generator)
    drawn.data.copy_(fresh)
    zero.data.zero_()


def _seed(seed: int, restart: int) -> int:
    return int(np.random.SeedSequence([seed, restart]).generate_state(1, np.uint64)[0] >> np.uint64(1))

"""How much memory a process that trains takes: an estimate, by formulas that stand here and in the modules beside.

With ``P`` numbers in the model, ``N`` trained ones and ``b`` bytes of a stored number:

* weights ``P·b``, with a base model in few bits for its linear modules, plus ``4·N`` for an adapter, under which frozen linear
  modules are held in the half numbers that autocast computes in; as much again for a reference that is no adapter switched off;
* copies ``2·P`` of linear modules, where autocast halves weights in every forward pass;
* gradients ``N·b`` (``4·N`` for an adapter), and optimizer states, see :mod:`pipeline.forecast.optimizer`. LISA has gradients of
  a few layers at a time, and keeps the states of all that it ever drew;
* activations and logits, see :mod:`pipeline.forecast.activations`;
* what several processes add or share out, see :mod:`pipeline.forecast.sharing`.

Weights and states are always there. Gradients appear while activations go: the peak is where the backward pass begins, with all
activations and the gradient of the output head, or where it ends, with all gradients and the activations of one layer. Where
gradients are accumulated over several forward passes they are there all the time.

Memory in use is meant. Allocators keep gaps: a process with glibc's was 8 to 20 % larger than this, for a model of 135M numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.forecast.activations import Activations, Batch, Numbers, activations, logit_bytes
from pipeline.forecast.optimizer import largest_gradient, state_bytes
from pipeline.forecast.sizes import layer_sizes
from pipeline.forecast.tensors import Shapes, adapter_size, count, in_layers, linear, unfrozen, value_of
from pipeline.options.views import TrainOptions

PROGRAM = 550 * 2**20
"""Bytes of Python, torch and transformers themselves, measured on Linux without a GPU."""

_PLAIN_BEGINNINGS = ("True", "gaussian", "eva")
"""Adapters whose product begins as zero: switched off, the model is its own reference."""


@dataclass(frozen=True)
class Memory:
    """Bytes on the device of one process, and the counts they come from."""

    parameters: int
    trained: int
    weights: float
    reference: float
    copies: float
    gradients: float
    first_gradient: float
    """That of the output head, which is there first."""
    optimizer: float
    activations: Activations
    logits: float
    together: bool
    """Whether gradients are there while activations are."""
    buffers: float = 0
    """Through which gradients and weights pass from process to process."""
    offloaded: float = 0
    """In RAM beside a GPU."""

    @property
    def beginning(self) -> float:
        """Of the backward pass."""
        forward = self.copies + self.activations.waiting + self.logits
        return forward + (self.gradients if self.together else self.first_gradient)

    @property
    def end(self) -> float:
        """Of the backward pass."""
        return self.gradients + self.activations.layer

    @property
    def total(self) -> float:
        """At the peak, without the program itself."""
        return self.weights + self.reference + self.optimizer + self.buffers + max(self.beginning, self.end)


def estimate(
    options: TrainOptions, config: Mapping[str, Any], shapes: Shapes, batch: Batch, *, half: bool, gpu: bool = False, steps: int = 1
) -> Memory:
    """Memory of a run on one device by one process.

    Args:
        config: config.json of the base model.
        shapes: of its tensors.
        half: whether it computes in two bytes (bf16 or fp16) on this device.
        gpu: whether that is one.
        steps: of the optimizer, in the whole run.
    """
    parameters, stored = count(shapes), 2 if _is_half(options) else 4
    adapter = adapter_size(options, shapes, str(config.get("model_type"))) if options.adapter else 0
    computed = 2 if half or stored == 2 else 4
    numbers = Numbers(stored, computed, 1 if gpu else computed)
    trained = adapter if options.adapter else unfrozen(options, shapes)
    each = 4 if options.adapter else stored
    active, touched = _of_lisa(options, config, shapes, trained, steps)
    weights = _weights(options, shapes, numbers) + 4 * adapter
    return Memory(
        parameters=parameters + adapter,
        trained=active,
        weights=weights,
        reference=weights if _has_reference(options) else 0,
        copies=2 * count(linear(shapes)) if _casts(options, numbers) else 0,
        gradients=each * largest_gradient(options, shapes, active),
        first_gradient=0 if options.adapter or options.unfrozen_parameters else each * _head(config),
        optimizer=state_bytes(options, shapes, touched, each),
        activations=activations(options, config, shapes, batch, numbers),
        logits=logit_bytes(options, config, batch, numbers, gpu=gpu),
        together=batch.accumulated > 1 and active == largest_gradient(options, shapes, active),
    )


def _is_half(options: TrainOptions) -> bool:
    """Whether weights are stored in two bytes."""
    return bool(value_of(options, "bfloat16") or value_of(options, "float16") or options.bf16 == "full")


def _weights(options: TrainOptions, shapes: Shapes, numbers: Numbers) -> float:
    inside = count(linear(shapes))
    return (count(shapes) - inside) * numbers.stored + inside * _bytes_of_linear(options, numbers)


def _bytes_of_linear(options: TrainOptions, numbers: Numbers) -> float:
    """Of each number of a frozen or trained linear module."""
    if value_of(options, "load_in_4bit") or options.adapter == "qlora":
        return 0.5 + 4 / 64  # 4 bits, and a scale for each 64 numbers
    if value_of(options, "load_in_8bit"):
        return 1
    return numbers.computed if _halves_frozen(options) else numbers.stored


def _halves_frozen(options: TrainOptions) -> bool:
    """As :func:`stages.train.model.precision.halve_frozen` does."""
    whole = options.peft_use_dora or options.relora or options.lora_target_parameters
    compares = options.rl is not None or options.reward_model or options.process_reward_model
    return bool(options.adapter) and not whole and not compares


def _casts(options: TrainOptions, numbers: Numbers) -> bool:
    """Whether autocast makes halves of linear modules' weights."""
    return _bytes_of_linear(options, numbers) == numbers.stored == 4 > numbers.computed


def _has_reference(options: TrainOptions) -> bool:
    """Whether a second model is there while the first is trained."""
    if options.rl not in ("dpo", "ipo", "kto") or options.precompute_ref_log_probs:
        return False
    beginning = "loftq" if options.peft is not None and options.peft.loftq_config is not None else str(options.peft_init_lora_weights)
    return not options.adapter or beginning not in _PLAIN_BEGINNINGS


def _head(config: Mapping[str, Any]) -> int:
    sizes = layer_sizes(config)
    return sizes.hidden * sizes.vocabulary


def _of_lisa(options: TrainOptions, config: Mapping[str, Any], shapes: Shapes, trained: int, steps: int) -> tuple[int, int]:
    """Numbers that have gradients at a time, and those that have states in the end.

    After ``d`` draws of ``n`` layers among ``L``, a layer was drawn with probability ``1 - (1 - n/L)^d``.
    """
    if options.lisa_n_layers is None or options.lisa_step_interval is None:
        return trained, trained
    inside, layers = in_layers(shapes), layer_sizes(config).layers
    share = min(1.0, options.lisa_n_layers / layers)
    drawn = 1 - (1 - share) ** math.ceil(steps / options.lisa_step_interval)
    return trained - inside + round(inside * share), trained - inside + round(inside * drawn)

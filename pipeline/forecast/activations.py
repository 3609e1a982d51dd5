"""What the backward pass waits for: activations of the layers, and logits.

For each token a layer keeps, with ``h`` the hidden size, ``q`` the width of all attention heads together and ``i`` the inner width of
the MLP: the input of both norms (``2h``), queries, repeated keys and values, and the output of the attention (``4q``), and three
widths of a gated MLP (``3i``). Where weights are trained, also what they are multiplied with: for a whole layer ``4h + i``, for an
adapter the inputs of what it adapts. Norms compute in the numbers of the weights, ``r`` bytes each, all else in ``c``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.forecast.sizes import Sizes, layer_sizes
from pipeline.forecast.tensors import Shapes, targets, trained_layers
from pipeline.options.views import TrainOptions

_TILE = (4096, 32768)
"""Tokens and tokens of the vocabulary whose logits TRL's losses compute at a time (TRL 1.x, ``kernels/chunked_logprob.py``)."""


@dataclass(frozen=True)
class Batch:
    """One forward pass.

    Attributes:
        rows: of tokens; a pair of answers is two.
        length: tokens of the longest row, padding included.
        trained: tokens of all its rows whose logits are computed.
        accumulated: forward passes in an optimizer step.
        packed: whether a bin holds several documents.
    """

    rows: int
    length: int
    trained: int
    accumulated: int
    packed: bool


@dataclass(frozen=True)
class Numbers:
    """Bytes of a number: stored in a weight, computed by a matrix product, and in a mask of dropout, which is a bit on GPUs alone."""

    stored: int
    computed: int
    mask: int


@dataclass(frozen=True)
class Activations:
    """Bytes.

    Attributes:
        waiting: on the device when the backward pass begins.
        layer: of one layer in full, which the backward pass ends with.
        elsewhere: that wait on disk, or in RAM beside a GPU.
    """

    waiting: float
    layer: float
    elsewhere: float


def activations(options: TrainOptions, config: Mapping[str, Any], shapes: Shapes, batch: Batch, numbers: Numbers) -> Activations:
    """Of one forward pass. Layers below all that is trained keep nothing, and frozen ones above it less."""
    sizes, kind, tokens = layer_sizes(config), str(config.get("model_type")), batch.rows * batch.length
    trained, passed = trained_layers(options, shapes, kind, sizes.layers)
    outer, inner = _of_frozen(sizes, numbers)
    more, more_inner = _of_trained(options, shapes, kind, sizes, numbers, trained)
    pieces = (options.tiled_mlp_num_shards or math.ceil(batch.length / sizes.hidden)) if options.tiled_mlp else 1
    kept = 1 if pieces == 1 else 0  # of an MLP in pieces only its input
    layers = tokens * ((trained + passed) * (outer + inner * kept) + trained * (more + more_inner * kept))
    layer = tokens * (outer + inner / pieces + (more + more_inner / pieces if trained else 0))
    recomputed = _recomputed(options, sizes.layers)
    layers *= 1 - recomputed
    layers += recomputed * (trained + passed) * sizes.hidden * numbers.stored * tokens
    mask = batch.rows * batch.length**2 if batch.packed else 0
    if waiting_place(options):
        return Activations(layer + mask, layer, layers)
    return Activations(layers + (layer if recomputed or pieces > 1 else 0) + mask, layer, 0)


def waiting_place(options: TrainOptions) -> str:
    """Where activations wait if not in the device's memory: on disk or in RAM."""
    place = options.activation_offloading or {"offload": True, "offload_disk": "disk"}.get(str(options.gradient_checkpointing))
    return "" if not place else "on disk" if place == "disk" else "in RAM"


def _of_frozen(sizes: Sizes, numbers: Numbers) -> tuple[int, int]:
    """Bytes for a token of a layer outside of its MLP, and inside."""
    return 2 * sizes.hidden * numbers.stored + 4 * sizes.heads * numbers.computed, 3 * sizes.inner * numbers.computed


def _of_trained(options: TrainOptions, shapes: Shapes, kind: str, sizes: Sizes, numbers: Numbers, layers: int) -> tuple[float, float]:
    """Bytes for a token that a trained layer keeps besides, outside of its MLP and inside.

    Modules of a block that are adapted have one input in common, unless dropout makes a copy and a mask of it for each of them, or
    autocast a copy of what a norm computed in full.
    """
    if not options.adapter:
        return 2 * sizes.hidden * (numbers.stored + numbers.computed), sizes.inner * numbers.computed
    adapted = targets(options, shapes, kind)
    if options.lora_dropout:
        return sum(shape[-1] for shape in adapted.values()) * (numbers.computed + numbers.mask) / max(layers, 1), 0
    own = numbers.stored != numbers.computed
    inputs = {
        (name if own and shape[-1] == sizes.hidden else name.rpartition(".")[0], shape[-1])
        for name, shape in adapted.items()
        if not name.endswith("o_proj")  # whose input the attention keeps
    }
    return sum(width for _, width in inputs) * numbers.computed / max(layers, 1), 0


def _recomputed(options: TrainOptions, layers: int) -> float:
    """The share of the layers of which only the input is kept."""
    if not options.gradient_checkpointing:
        return 0
    every = (options.gradient_checkpointing_kwargs or {}).get("every_n_layers", 1)
    return math.ceil(layers / int(every)) / layers


def logit_bytes(options: TrainOptions, config: Mapping[str, Any], batch: Batch, numbers: Numbers, *, gpu: bool) -> float:
    """``12·V`` for each token: logits, their logarithms and their gradient, in fp32.

    DPO and KTO compute them in tiles, on a GPU in place, without one with eight copies; ORPO and SimPO those of all tokens.
    """
    vocabulary, tokens = layer_sizes(config).vocabulary, batch.rows * batch.length
    if options.reward_model or options.process_reward_model:
        return 0
    if options.rl in ("dpo", "ipo", "kto"):
        rows = min(_TILE[0], batch.trained if gpu else tokens)
        return rows * (_TILE[1] * numbers.computed + (0 if gpu else 8 * 4 * min(_TILE[1], vocabulary)))
    if options.rl in ("orpo", "simpo"):
        return 12 * vocabulary * tokens
    return 12 * vocabulary * batch.trained / (options.chunked_cross_entropy_num_chunks if options.chunked_cross_entropy else 1)

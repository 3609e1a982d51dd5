"""How much memory a training run takes: an estimate, by formulas that stand here.

With ``P`` numbers in the model, ``N`` trained ones, ``b`` bytes of a stored and ``c`` of a computed number:

* weights ``P·b``, with a base model in few bits for its linear modules, plus ``4·N`` for an adapter;
* gradients ``N·b`` (``4·N`` for an adapter);
* optimizer states: so many numbers for each trained one, and bytes for each of these (see :data:`STATES`);
* activations of ``T`` tokens: each layer keeps ``6h + 4q + 4i`` numbers of ``c`` bytes for each token, where ``h`` is the hidden
  size, ``q`` the width of all attention heads together and ``i`` the inner width of the MLP (both norms with input and output,
  attention with queries, repeated keys and values, and output, a gated MLP). With gradient checkpointing ``h`` for each layer, and
  one layer in full. LoRA dropout keeps a copy and a mask of each adapted module's input. Packed rows take a mask of ``T²`` bytes
  for each row of the batch;
* logits: ``12·V`` bytes for each trained token (logits, their logarithms, their gradient, in fp32), ``V`` being the vocabulary.

Memory in use is meant. Allocators keep gaps: a process with glibc's was 8 to 20 % larger than this, for a model of 135M numbers.

Weights and states are always there. Gradients appear while activations go, so only the larger of the two counts, unless gradients
are accumulated over several forward passes. Several processes each take as much; sharding is not counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from pipeline.forecast.tensors import Shapes, adapter_size, count, linear, targets, unfrozen, value_of
from pipeline.options.views import TrainOptions

STATES: tuple[tuple[str, float, float], ...] = (
    ("*adafactor*", 0, 4),  # a row and a column of each matrix
    ("schedule_free_sgd", 1, 4),
    ("flash_adam*", 2, 1),
    ("flash_lion", 1, 1),
    ("flash_sgd*", 1, 1),
    ("sgd", 0, 4),
    ("sinkgd", 0, 4),
    ("lomo", 0, 4),
    ("lion_8bit", 1, 1),
    ("paged_lion_8bit", 1, 1),
    ("*lion*", 1, 4),
    ("rmsprop*8bit", 1, 1),
    ("rmsprop*", 1, 4),
    ("adagrad", 1, 4),
    ("muon", 1, 4),  # momentum of matrices; embeddings and vectors have AdamW's two
    ("dion", 1, 4),
    ("*ademamix_8bit", 3, 1),
    ("*ademamix*", 3, 4),
    ("grokadamw", 3, 4),
    ("came_pytorch", 1, 4),
    ("*4bit", 2, 0.5),
    ("*8bit*", 2, 1),
    ("*fp8", 2, 1),
    ("*", 2, 4),  # Adam and its kin; galore and apollo stay below it
)
"""Optimizer (the first pattern that fits counts), numbers for each trained one, bytes of each."""

PROGRAM = 550 * 2**20
"""Bytes of Python, torch and transformers themselves, measured on Linux without a GPU."""


@dataclass(frozen=True)
class Batch:
    """One forward pass.

    Attributes:
        rows: bins in it.
        length: tokens of the longest bin, padding included.
        trained: tokens of all its bins whose logits are computed.
        accumulated: forward passes in an optimizer step.
        packed: whether a bin holds several documents.
    """

    rows: int
    length: int
    trained: int
    accumulated: int
    packed: bool


@dataclass(frozen=True)
class Memory:
    """Bytes, and the counts they come from."""

    parameters: int
    trained: int
    weights: float
    gradients: float
    optimizer: float
    activations: float
    logits: float
    together: bool
    """Whether gradients are there while activations are."""

    @property
    def total(self) -> float:
        """At the peak, without the program itself."""
        forward = self.activations + self.logits
        return self.weights + self.optimizer + (self.gradients + forward if self.together else max(self.gradients, forward))


def estimate(options: TrainOptions, config: Mapping[str, Any], shapes: Shapes, batch: Batch, *, half: bool) -> Memory:
    """Memory of a run on one device.

    Args:
        config: config.json of the base model.
        shapes: of its tensors.
        half: whether it computes in two bytes (bf16 or fp16) on this device.
    """
    parameters = count(shapes)
    stored = 2 if _is_half(options) else 4
    adapter = adapter_size(options, shapes, str(config.get("model_type"))) if options.adapter else 0
    trained = adapter if options.adapter else unfrozen(options, shapes)
    states, each = next((number, size) for pattern, number, size in STATES if fnmatchcase(options.optimizer, pattern))
    computed = 2 if half or stored == 2 else 4
    return Memory(
        parameters=parameters + adapter,
        trained=trained,
        weights=_weights(options, shapes, stored) + 4 * adapter,
        gradients=(4 if options.adapter else stored) * trained,
        optimizer=states * min(each, 4 if options.adapter else stored) * trained,
        activations=_activations(options, config, shapes, batch, computed),
        logits=_logits(options, config, batch),
        together=batch.accumulated > 1,
    )


def _is_half(options: TrainOptions) -> bool:
    """Whether weights are stored in two bytes."""
    return bool(value_of(options, "bfloat16") or value_of(options, "float16") or options.bf16 == "full")


def _weights(options: TrainOptions, shapes: Shapes, stored: int) -> float:
    four = bool(value_of(options, "load_in_4bit")) or options.adapter == "qlora"
    few = 0.5 + 4 / 64 if four else 1.0 if value_of(options, "load_in_8bit") else None  # 4 bits, and a scale for each 64 numbers
    if few is None:
        return count(shapes) * stored
    quantised = count(linear(shapes))
    return (count(shapes) - quantised) * stored + quantised * few


def _activations(options: TrainOptions, config: Mapping[str, Any], shapes: Shapes, batch: Batch, computed: int) -> float:
    sizes = layer_sizes(config)
    tokens = batch.rows * batch.length
    layer = float((6 * sizes.hidden + 4 * sizes.heads + 4 * sizes.inner) * computed * tokens)
    if options.adapter and options.lora_dropout:
        inputs = sum(shape[-1] for shape in targets(options, shapes, str(config.get("model_type"))).values())
        layer += inputs / sizes.layers * (computed + 1) * tokens
    mask = batch.rows * batch.length**2 if batch.packed else 0
    kept = sizes.layers * sizes.hidden * computed * tokens + layer if options.gradient_checkpointing else sizes.layers * layer
    return kept + mask


def _logits(options: TrainOptions, config: Mapping[str, Any], batch: Batch) -> float:
    whole = 12 * layer_sizes(config).vocabulary * batch.trained
    chunks = value_of(options, "chunked_cross_entropy_num_chunks")
    return whole / (int(chunks) if isinstance(chunks, int) else 8) if value_of(options, "chunked_cross_entropy") else whole


@dataclass(frozen=True)
class Sizes:
    """Widths of a decoder, in numbers for each token, and how many layers and tokens it has."""

    layers: int
    hidden: int
    heads: int
    inner: int
    vocabulary: int


_NAMES = {
    "layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "hidden": ("hidden_size", "n_embd", "d_model", "dim"),
    "attention": ("num_attention_heads", "n_head", "n_heads"),
    "vocabulary": ("vocab_size",),
}


def layer_sizes(config: Mapping[str, Any]) -> Sizes:
    """As config.json has them, under the names that architectures give them.

    Raises:
        KeyError: it has none of the names of one of them.
    """
    config = config.get("text_config") or config
    found = {name: int(next(config[key] for key in keys if config.get(key))) for name, keys in _NAMES.items() if _has(config, keys)}
    hidden = found["hidden"]
    heads = found["attention"] * int(config.get("head_dim") or hidden // found["attention"])
    return Sizes(found["layers"], hidden, heads, _inner(config, hidden), found["vocabulary"])


def _has(config: Mapping[str, Any], keys: tuple[str, ...]) -> bool:
    return any(config.get(key) for key in keys)


def _inner(config: Mapping[str, Any], hidden: int) -> int:
    """Inner width of the MLP; of experts, those that see a token."""
    if config.get("moe_intermediate_size") and config.get("num_experts_per_tok"):
        return int(config["moe_intermediate_size"]) * int(config["num_experts_per_tok"])
    inner = next((config[key] for key in ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size") if config.get(key)), 4 * hidden)
    return int(inner) * int(config.get("num_experts_per_tok") or 1)

"""GGUF: one file for llama.cpp, written tensor by tensor.

Matrices get the type that is asked for; vectors, and matrices whose rows do not fill its blocks, stay float32. In four and
five bits, embeddings and the output head get Q8_0: every token passes through them, and llama.cpp's own tool spares them too.
The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from gguf import (
    GGML_QUANT_SIZES,
    GGML_QUANT_VERSION,
    GGMLQuantizationType,
    GGUFWriter,
    LlamaFileType,
    get_tensor_name_map,
    quants,
    size_label,
)
from safetensors import safe_open

from pipeline.errors import RegrowError
from pipeline.progress import Progress
from stages.quantize.architectures import REMOVE, Architecture, add_hyperparameters, read_model_config
from stages.quantize.vocabulary import read_vocabulary

Type = GGMLQuantizationType

FILE_TYPES = {
    Type.F32: LlamaFileType.ALL_F32,
    Type.F16: LlamaFileType.MOSTLY_F16,
    Type.BF16: LlamaFileType.MOSTLY_BF16,
    Type.Q8_0: LlamaFileType.MOSTLY_Q8_0,
    Type.Q5_1: LlamaFileType.MOSTLY_Q5_1,
    Type.Q5_0: LlamaFileType.MOSTLY_Q5_0,
    Type.Q4_1: LlamaFileType.MOSTLY_Q4_1,
    Type.Q4_0: LlamaFileType.MOSTLY_Q4_0,
}
"""The type of matrices, and what the file says of itself with it."""

KINDS = {kind.name.lower(): kind for kind in FILE_TYPES}
"""A type by its name in params.yaml."""

_SPARED = ("token_embd.weight", "output.weight")
_SPARING = (Type.Q5_1, Type.Q5_0, Type.Q4_1, Type.Q4_0)


@dataclass(frozen=True)
class Weight:
    """A tensor of the merged model and what it becomes.

    Attributes:
        name: in the merged model.
        gguf_name: in the GGUF file.
        shape: as stored, outermost first.
        source: the opened file that holds it.
        wanted: the type that matrices get.
    """

    name: str
    gguf_name: str
    shape: tuple[int, ...]
    source: Any
    wanted: GGMLQuantizationType

    @property
    def kind(self) -> GGMLQuantizationType:
        """The type it gets."""
        wanted = Type.Q8_0 if self.wanted in _SPARING and self.gguf_name in _SPARED else self.wanted
        return wanted if len(self.shape) == 2 and self.shape[-1] % GGML_QUANT_SIZES[wanted][0] == 0 else Type.F32

    @property
    def nbytes(self) -> int:
        """Bytes it takes."""
        weights, size = GGML_QUANT_SIZES[self.kind]
        return prod(self.shape) // weights * size


def write_gguf(merged: Path, file: Path, wanted: str, progress: Progress) -> dict[str, Any]:
    """Write the model in ``merged`` as ``file``, with matrices of the type ``wanted`` (``q8_0`` …). Memory is one tensor's.

    Returns:
        bytes of the file, bits_per_weight, tensors, quantized (how many of them).

    Raises:
        RegrowError: an architecture, a setting, a tensor or a tokenizer that GGUF or llama.cpp would not reproduce.
    """
    architecture, config = read_model_config(merged)
    weights = _list_weights(merged, architecture, config, KINDS[wanted])
    writer = GGUFWriter(file, architecture.name)
    _add_metadata(writer, merged, weights, config)
    for weight in weights:
        writer.add_tensor_info(weight.gguf_name, weight.shape, np.dtype(np.float32), weight.nbytes, weight.kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    with progress.task(wanted, total=len(weights), unit="tensors") as task:
        for weight in weights:
            writer.write_tensor_data(quants.quantize(_read(weight, architecture, config), weight.kind))
            task.advance()
    writer.close()
    return {
        "bytes": file.stat().st_size,
        "bits_per_weight": round(8 * sum(weight.nbytes for weight in weights) / _count(weights), 3),
        "tensors": len(weights),
        "quantized": sum(weight.kind is not Type.F32 for weight in weights),
    }


def _list_weights(merged: Path, architecture: Architecture, config: Any, wanted: GGMLQuantizationType) -> list[Weight]:
    """Every tensor of the model, under the name gguf-py's own table gives it."""
    names = get_tensor_name_map(architecture.gguf, config.num_hidden_layers)
    weights = []
    for file in sorted(merged.glob("model*.safetensors")):
        source: Any = safe_open(str(file), framework="pt", backend="pread")
        for name in sorted(source.keys()):
            gguf_name = names.get_name(name, try_suffixes=(".weight", ".bias"))
            if gguf_name is None:
                raise RegrowError(f"{file} holds {name}, which GGUF has no name for in {architecture.name}.", REMOVE)
            weights.append(Weight(name, gguf_name, tuple(source.get_slice(name).get_shape()), source, wanted))
    # llama.cpp uses the embedding as the head where there is no output.weight, which is what tied means.
    return [weight for weight in weights if not (config.tie_word_embeddings and weight.gguf_name == "output.weight")]


def _add_metadata(writer: GGUFWriter, merged: Path, weights: list[Weight], config: Any) -> None:
    label = size_label(_count(weights), 0, 0, 0)
    writer.add_type("model")
    writer.add_name(f"{config.model_type} {label}")
    writer.add_size_label(label)
    writer.add_file_type(FILE_TYPES[weights[0].wanted])
    writer.add_quantization_version(GGML_QUANT_VERSION)
    add_hyperparameters(writer, config)
    read_vocabulary(merged, config.vocab_size).add_to(writer)


def _read(weight: Weight, architecture: Architecture, config: Any) -> np.ndarray:
    values: np.ndarray = weight.source.get_tensor(weight.name).float().numpy()
    if not np.isfinite(values).all():
        raise RegrowError(f"{weight.name} of the merged model holds values that are not finite.", "Train again with a lower learning_rate.")
    if architecture.interleaved and ".attn_q." in weight.gguf_name:
        return _interleave(values, config.num_attention_heads)
    if architecture.interleaved and ".attn_k." in weight.gguf_name:
        return _interleave(values, config.num_key_value_heads)
    return values


def _interleave(rows: np.ndarray, heads: int) -> np.ndarray:
    """Within each head, rows ``0..d/2`` and ``d/2..d`` alternate: the order in which llama.cpp rotates them."""
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows.shape))


def _count(weights: list[Weight]) -> int:
    return sum(prod(weight.shape) for weight in weights)

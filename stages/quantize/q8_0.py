"""q8_0: one GGUF file, written tensor by tensor.

Matrices become Q8_0 (blocks of 32 weights along a row: int8 and one float16 scale, 8.5 bits per weight); vectors, and matrices
whose rows are no multiple of 32, stay float32. The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
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

Q8_0, F32 = GGMLQuantizationType.Q8_0, GGMLQuantizationType.F32
_BLOCK, _BLOCK_BYTES = GGML_QUANT_SIZES[Q8_0]


@dataclass(frozen=True)
class Weight:
    """A tensor of the merged model and what it becomes.

    Attributes:
        name: in the merged model.
        gguf_name: in the GGUF file.
        shape: as stored, outermost first.
        source: the opened file that holds it.
    """

    name: str
    gguf_name: str
    shape: tuple[int, ...]
    source: Any

    @property
    def kind(self) -> GGMLQuantizationType:
        return Q8_0 if len(self.shape) == 2 and self.shape[-1] % _BLOCK == 0 else F32

    @property
    def nbytes(self) -> int:
        return prod(self.shape) // _BLOCK * _BLOCK_BYTES if self.kind is Q8_0 else 4 * prod(self.shape)


def write_q8_0(merged: Path, file: Path, progress: Progress) -> dict[str, Any]:
    """Write the model in ``merged`` as ``file``.

    Returns:
        bytes of the file, bits_per_weight, tensors, quantized (how many of them).

    Raises:
        RegrowError: an architecture, a setting, a tensor or a tokenizer that GGUF or llama.cpp would not reproduce.
    """
    architecture, config = read_model_config(merged)
    weights = _list_weights(merged, architecture, config)
    writer = GGUFWriter(file, architecture.name)
    _add_metadata(writer, merged, weights, config)
    for weight in weights:
        writer.add_tensor_info(weight.gguf_name, weight.shape, np.dtype(np.float32), weight.nbytes, weight.kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    with progress.task("q8_0", total=len(weights), unit="tensors") as task:
        for weight in weights:
            writer.write_tensor_data(quants.quantize(_read(weight, architecture, config), weight.kind))
            task.advance()
    writer.close()
    return {
        "bytes": file.stat().st_size,
        "bits_per_weight": round(8 * sum(weight.nbytes for weight in weights) / _count(weights), 3),
        "tensors": len(weights),
        "quantized": sum(weight.kind is Q8_0 for weight in weights),
    }


def _list_weights(merged: Path, architecture: Architecture, config: Any) -> list[Weight]:
    """Every tensor of the model, under the name gguf-py's own table gives it."""
    names = get_tensor_name_map(architecture.gguf, config.num_hidden_layers)
    weights = []
    for file in sorted(merged.glob("model*.safetensors")):
        source: Any = safe_open(str(file), framework="pt", backend="pread")
        for name in sorted(source.keys()):
            gguf_name = names.get_name(name, try_suffixes=(".weight", ".bias"))
            if gguf_name is None:
                raise RegrowError(f"{file} holds {name}, which GGUF has no name for in {architecture.name}.", REMOVE)
            weights.append(Weight(name, gguf_name, tuple(source.get_slice(name).get_shape()), source))
    # llama.cpp uses the embedding as the head where there is no output.weight, which is what tied means.
    return [weight for weight in weights if not (config.tie_word_embeddings and weight.gguf_name == "output.weight")]


def _add_metadata(writer: GGUFWriter, merged: Path, weights: list[Weight], config: Any) -> None:
    label = size_label(_count(weights), 0, 0, 0)
    writer.add_type("model")
    writer.add_name(f"{config.model_type} {label}")
    writer.add_size_label(label)
    writer.add_file_type(LlamaFileType.MOSTLY_Q8_0)
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

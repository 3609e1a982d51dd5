"""int8: torchao's weight-only quantization, one scale per output row of every linear layer.

Embeddings and the output head stay as they are, as transformers has it for torchao.

The folder is one that ``AutoModelForCausalLM.from_pretrained`` opens; transformers builds the model to write it,
so memory is that of the merged model and of its int8 copy.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from shutil import copyfile
from typing import Any

from pipeline.errors import RegrowError
from pipeline.models import quiet_libraries

_REWRITTEN = ("config.json", "generation_config.json", "model*.safetensors", "model.safetensors.index.json", "manifest.json")


def write_int8(merged: Path, folder: Path) -> dict[str, Any]:
    """Quantize the model in ``merged`` into ``folder``, tokenizer included.

    Returns:
        bytes of the weight files, bits_per_weight, tensors, quantized (how many of them).

    Raises:
        RegrowError: a model that transformers cannot open, or one without linear layers.
    """
    quiet_libraries()
    model = _open_quantized(merged)
    model.save_pretrained(folder)
    files = sorted(folder.glob("model*.safetensors"))
    for file in files:
        _sort_metadata(file)
    quantized = sum(name.endswith("_weight_qdata") for file in files for name in _header(file))
    if not quantized:
        raise RegrowError(
            f"{merged} has no linear layer that int8 could quantize.",
            "Remove int8 from quantize.formats.",
        )
    _copy_the_rest(merged, folder)
    weights = _parameters(model)
    stored = sum(entry["data_offsets"][1] - entry["data_offsets"][0] for file in files for entry in _header(file).values())
    return {
        "bytes": sum(file.stat().st_size for file in files),
        "bits_per_weight": round(8 * stored / sum(weights), 3),
        "tensors": len(weights),
        "quantized": quantized,
    }


def _open_quantized(merged: Path) -> Any:
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import AutoModelForCausalLM, TorchAoConfig

    try:
        return AutoModelForCausalLM.from_pretrained(
            merged,
            dtype="auto",
            quantization_config=TorchAoConfig(Int8WeightOnlyConfig(version=2)),
            local_files_only=True,
            trust_remote_code=False,
        )
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise RegrowError(f"The model in {merged} cannot be opened for int8: {reason}", "Remove int8 from quantize.formats.") from error


def _parameters(model: Any) -> list[int]:
    """Weights per tensor; ``parameters()`` gives a tied tensor once."""
    return [parameter.numel() for parameter in model.parameters()]


def _copy_the_rest(merged: Path, folder: Path) -> None:
    skipped = {path for pattern in _REWRITTEN for path in merged.glob(pattern)}
    for path in sorted(merged.rglob("*")):
        if path.is_file() and path not in skipped:
            target = folder / path.relative_to(merged)
            target.parent.mkdir(parents=True, exist_ok=True)
            copyfile(path, target)


def _header(file: Path) -> dict[str, Any]:
    with file.open("rb") as stream:
        (size,) = struct.unpack("<Q", stream.read(8))
        entries: dict[str, Any] = json.loads(stream.read(size))
    entries.pop("__metadata__", None)
    return entries


def _sort_metadata(file: Path) -> None:
    """Order the metadata of a safetensors file by key, in place.

    safetensors 0.8 keeps metadata in a hash table with a random seed, and torchao puts an entry per tensor there, so the
    same model has other bytes in every process. Sorted, the header is as long as it was; spaces pad it where it is not.
    """
    with file.open("r+b") as stream:
        (size,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(size))
        header["__metadata__"] = dict(sorted(header.get("__metadata__", {}).items()))
        stream.seek(8)
        stream.write(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(size))

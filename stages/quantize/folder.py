"""A quantised model as a Hugging Face folder: safetensors in one canonical form, everything else as the merged model has it."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from shutil import copyfile
from typing import Any

from stages.quantize.merged import Layers

_REWRITTEN = ("config.json", "model*.safetensors", "model.safetensors.index.json", "manifest.json", "README.md")


def save_folder(model: Any, merged: Path, folder: Path) -> None:
    """Write ``model`` as transformers does, and the rest of ``merged`` beside it."""
    from transformers import GenerationConfig

    # transformers checks this one at every save and refuses some that published models have; theirs is copied instead.
    model.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
    model.save_pretrained(folder)
    finish_folder(merged, folder)


def finish_folder(merged: Path, folder: Path) -> None:
    """Bring the safetensors files into one form and copy what else ``merged`` holds: tokenizer, templates, generation settings."""
    (folder / "generation_config.json").unlink(missing_ok=True)
    for file in weight_files(folder):
        _sort_metadata(file)
    skipped = {path for pattern in _REWRITTEN for path in merged.glob(pattern)}
    for path in sorted(merged.rglob("*")):
        if path.is_file() and path not in skipped:
            target = folder / path.relative_to(merged)
            target.parent.mkdir(parents=True, exist_ok=True)
            copyfile(path, target)


def facts_of_folder(folder: Path, layers: Layers, quantized: int) -> dict[str, Any]:
    """bytes of the weight files, bits_per_weight of all that is stored, tensors of the model, quantized (how many of them)."""
    entries = [entry["data_offsets"] for file in weight_files(folder) for entry in header(file).values()]
    return {
        "bytes": sum(file.stat().st_size for file in weight_files(folder)),
        "bits_per_weight": round(8 * sum(end - start for start, end in entries) / layers.weights, 3),
        "tensors": layers.parameters,
        "quantized": quantized,
    }


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model."""
    return sorted(folder.glob("model*.safetensors"))


def header(file: Path) -> dict[str, Any]:
    """Name of each tensor of a safetensors file, and what is said of it."""
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
        found = json.loads(stream.read(size))
        if "__metadata__" not in found:
            return
        found["__metadata__"] = dict(sorted(found["__metadata__"].items()))
        stream.seek(8)
        stream.write(json.dumps(found, separators=(",", ":"), ensure_ascii=False).encode().ljust(size))

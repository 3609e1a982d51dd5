"""A model directory from an adapter and its base, or from trained weights."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from shutil import copyfile
from typing import Any

import torch
from torch import Tensor

from pipeline.digest import canonical_json
from pipeline.errors import RegrowError
from pipeline.progress import Progress
from stages.merge.adapter_config import read_config
from stages.merge.changes import ADAPTER, Adapter, match_tensors
from stages.merge.checkpoint import Checkpoint
from stages.merge.shards import INDEX, write_files
from stages.merge.tied import Tie, find_tie, must_untie

_MODEL_FILES = ("generation_config.json", "*.py")
_TOKENIZER_FILES = (
    "tokenizer*.json",
    "tokenizer.model*",
    "*.tiktoken",
    "*.spm",
    "spiece.model",
    "sentencepiece*.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "chat_template*",
    "additional_chat_templates/*.jinja",
)


def merge_adapter(base_folder: Path, trained: Path, destination: Path, limit: int, progress: Progress) -> dict[str, Any]:
    """Fold the adapter in ``trained`` into the base and write the merged model to ``destination``.

    Returns:
        Facts about the result: tensors, changed, parameters, bytes, files, dtype.
    """
    base = Checkpoint(base_folder)
    config, tensors = read_config(trained), Checkpoint(trained, ADAPTER)
    adapter = Adapter(config, tensors, match_tensors(tensors.shapes, config))
    tie = _tie(base_folder, base, adapter)
    _check_targets(base, adapter, tie)
    untied = tie is not None and must_untie(tie, base, adapter)
    sizes = _sizes(base, tie, untied)

    def tensor(name: str) -> Tensor:
        stored = tie.embedding if tie and name == tie.head else name
        return adapter.apply(name, base.read(stored))

    with progress.task("merge", total=len(sizes), unit="tensors") as task:
        files = write_files(destination, sizes, limit, tensor, task)
    _write_config(base_folder, destination, _dtype(base), untied=untied)
    _copy(base_folder, destination, _MODEL_FILES)
    _copy(trained, destination, _TOKENIZER_FILES)
    return _facts(destination, base, sizes, files) | {"changed": len(adapter.changes)}


def pass_through(trained: Path, destination: Path, limit: int, progress: Progress) -> dict[str, Any]:
    """Copy the fully trained model in ``trained``; write its files anew only where one is larger than ``limit`` bytes.

    Returns:
        Facts about the result: tensors, changed, parameters, bytes, files, dtype.
    """
    model = Checkpoint(trained)
    sizes = {name: model.nbytes(name) for name in model.shapes}
    if all(file.stat().st_size <= limit for file in model.files):
        _copy(trained, destination, ("model*.safetensors", INDEX))
        files = [file.name for file in model.files]
    else:
        with progress.task("merge", total=len(sizes), unit="tensors") as task:
            files = write_files(destination, sizes, limit, model.read, task)
    _write_config(trained, destination, _dtype(model), untied=False)
    _copy(trained, destination, (*_MODEL_FILES, *_TOKENIZER_FILES))
    return _facts(destination, model, sizes, files) | {"changed": 0}


def _tie(folder: Path, base: Checkpoint, adapter: Adapter) -> Tie | None:
    """Only what lies outside the numbered layers can be tied, so most adapters are merged without importing a model class."""
    outside = any(not re.search(r"\.\d+\.", name) for name in adapter.changes)
    return find_tie(folder, base) if outside else None


def _check_targets(base: Checkpoint, adapter: Adapter, tie: Tie | None) -> None:
    known = base.shapes.keys() | ({tie.head} if tie else set())
    missing = sorted(adapter.changes.keys() - known)
    if missing:
        raise RegrowError(
            f"{ADAPTER} changes {missing[0]}, which the base does not have ({len(missing)} such tensors).",
            "The adapter belongs to another model, or to one that transformers loads under other names than it stores.",
        )


def _sizes(base: Checkpoint, tie: Tie | None, untied: bool) -> dict[str, int]:
    sizes = {name: base.nbytes(name) for name in base.shapes if tie is None or name != tie.head}
    if tie is not None and untied:
        sizes[tie.head] = sizes[tie.embedding]
    return sizes


def _dtype(model: Checkpoint) -> str:
    """The dtype that holds most bytes: what transformers should load the model in."""
    held: Counter[torch.dtype] = Counter()
    for name, dtype in model.dtypes.items():
        if dtype.is_floating_point:
            held[dtype] += model.nbytes(name)
    return str(max(held, key=lambda dtype: (held[dtype], str(dtype)))).removeprefix("torch.")


def _write_config(source: Path, destination: Path, dtype: str, *, untied: bool) -> None:
    path = source / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise RegrowError(f"{path} cannot be read: {error}.") from None
    if "quantization_config" in config:
        raise RegrowError(f"{path} says the weights are quantized, and a quantized model cannot be merged exactly.", "Use the full-precision base model.")
    config.pop("torch_dtype", None)
    config["dtype"] = dtype
    if untied:
        config["tie_word_embeddings"] = False
    (destination / "config.json").write_text(canonical_json(config), encoding="utf-8")


def _copy(source: Path, destination: Path, patterns: tuple[str, ...]) -> None:
    for path in sorted({path for pattern in patterns for path in source.glob(pattern)}):
        target = destination / path.relative_to(source)
        target.parent.mkdir(exist_ok=True)
        copyfile(path, target)


def _facts(destination: Path, model: Checkpoint, sizes: dict[str, int], files: list[str]) -> dict[str, Any]:
    head = {name: size for name, size in sizes.items() if name not in model.shapes}
    parameters = sum(torch.Size(model.shapes[name]).numel() for name in sizes if name in model.shapes)
    parameters += sum(size // getattr(torch, _dtype(model)).itemsize for size in head.values())
    return {
        "tensors": len(sizes),
        "parameters": parameters,
        "bytes": sum((destination / name).stat().st_size for name in files),
        "files": len(files),
        "dtype": _dtype(model),
    }

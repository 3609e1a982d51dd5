"""A model directory from an adapter and its base, or from trained weights."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import RegrowError
from pipeline.progress import Progress
from stages.merge.adapter_config import read_config
from stages.merge.changes import ADAPTER, Adapter, match_tensors
from stages.merge.checkpoint import Checkpoint
from stages.merge.folder import MODEL_FILES, TOKENIZER_FILES, copy_files, read_model_config, write_model_config
from stages.merge.shards import INDEX, write_files
from stages.merge.tied import Tie, find_tie, must_untie

Layout = Mapping[str, str]
"""Name of a tensor in the merged model → the base's tensor it is made from; they differ for an untied head only."""


def merge_adapter(base_folder: Path, trained: Path, destination: Path, limit: int, progress: Progress) -> dict[str, Any]:
    """Fold the adapter in ``trained`` into the base and write the merged model to ``destination``.

    Returns:
        Facts about the result: tensors, changed, parameters, bytes, files, dtype.
    """
    model_config, base = read_model_config(base_folder), Checkpoint(base_folder)
    config, tensors = read_config(trained), Checkpoint(trained, ADAPTER)
    adapter = Adapter(config, tensors, match_tensors(tensors.shapes, config))
    tie = _tie(base_folder, base, adapter)
    _check_targets(base, adapter, tie)
    layout = _layout(base, adapter, tie)
    sizes = {name: base.nbytes(stored) for name, stored in layout.items()}

    def tensor(name: str) -> Tensor:
        return adapter.apply(name, base.read(layout[name]))

    with progress.task("merge", total=len(sizes), unit="tensors") as task:
        files = write_files(destination, sizes, limit, tensor, task)
    write_model_config(model_config, destination, _dtype(base), untied=tie is not None and tie.head in layout)
    copy_files(base_folder, destination, MODEL_FILES)
    copy_files(trained, destination, TOKENIZER_FILES)
    return _facts(destination, base, layout, files) | {"changed": len(adapter.changes)}


def pass_through(trained: Path, destination: Path, limit: int, progress: Progress) -> dict[str, Any]:
    """Copy the fully trained model in ``trained``; write its files anew only where one is larger than ``limit`` bytes.

    Returns:
        Facts about the result: tensors, changed, parameters, bytes, files, dtype.
    """
    model_config, model = read_model_config(trained), Checkpoint(trained)
    if all(file.stat().st_size <= limit for file in model.files):
        copy_files(trained, destination, ("model*.safetensors", INDEX))
        files = [file.name for file in model.files]
    else:
        sizes = {name: model.nbytes(name) for name in model.shapes}
        with progress.task("merge", total=len(sizes), unit="tensors") as task:
            files = write_files(destination, sizes, limit, model.read, task)
    write_model_config(model_config, destination, _dtype(model), untied=False)
    copy_files(trained, destination, (*MODEL_FILES, *TOKENIZER_FILES))
    return _facts(destination, model, {name: name for name in model.shapes}, files) | {"changed": 0}


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


def _layout(base: Checkpoint, adapter: Adapter, tie: Tie | None) -> Layout:
    layout = {name: name for name in base.shapes}
    if tie is not None:
        layout.pop(tie.head, None)
        if must_untie(tie, base, adapter):
            layout[tie.head] = tie.embedding
    return layout


def _dtype(model: Checkpoint) -> str:
    """The dtype that holds most bytes: what transformers should load the model in."""
    held: Counter[torch.dtype] = Counter()
    for name, dtype in model.dtypes.items():
        if dtype.is_floating_point:
            held[dtype] += model.nbytes(name)
    return str(max(held, key=lambda dtype: (held[dtype], str(dtype)))).removeprefix("torch.")


def _facts(destination: Path, model: Checkpoint, layout: Layout, files: list[str]) -> dict[str, Any]:
    return {
        "tensors": len(layout),
        "parameters": sum(torch.Size(model.shapes[stored]).numel() for stored in layout.values()),
        "bytes": sum((destination / name).stat().st_size for name in files),
        "files": len(files),
        "dtype": _dtype(model),
    }

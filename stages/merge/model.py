"""A model directory from an adapter and its base, or from trained weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import RegrowError
from pipeline.progress import Progress
from stages.merge.adapter_config import read_config
from stages.merge.by_peft import merge_with_peft
from stages.merge.card import copy_card
from stages.merge.changes import ADAPTER, Adapter, match_tensors
from stages.merge.checkpoint import Checkpoint
from stages.merge.folder import MODEL_FILES, TOKENIZER_FILES, copy_files, read_model_config, write_model_config
from stages.merge.parameters import wrapped_parameters
from stages.merge.replication import replicate, with_layers
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
    wrapped, transposed = wrapped_parameters(base_folder, config.target_parameters)
    adapter = Adapter(config, tensors, match_tensors(tensors.shapes, config, wrapped), transposed)
    tie = _tie(base_folder, base, adapter)
    layout = replicate(base.shapes, config.layer_replication)
    if renamed := [name for name in adapter.changes if name.endswith(tuple(config.target_parameters)) and name not in layout]:
        return merge_with_peft(base_folder, trained, destination, limit, progress, renamed[0])
    _check_targets(layout, adapter, tie)
    _move_ends(layout, base, adapter, tie)
    vocabulary = _resized_vocabulary(base, adapter, layout, model_config.get("vocab_size"))
    sizes = {name: torch.Size(adapter.shape(name, base.shapes[home])).numel() * base.dtypes[home].itemsize for name, home in layout.items()}

    def tensor(name: str) -> Tensor:
        return adapter.apply(name, base.read(layout[name]))

    with progress.task("merge", total=len(sizes), unit="tensors") as task:
        files = write_files(destination, sizes, limit, tensor, task)
    changed = with_layers(model_config, config.layer_replication) | ({} if vocabulary is None else {"vocab_size": vocabulary})
    write_model_config(model_config | changed, destination, base.main_dtype(), untied=tie is not None and tie.head in layout)
    copy_files(base_folder, destination, MODEL_FILES)
    copy_files(trained, destination, TOKENIZER_FILES)
    copy_card(trained, destination, merged=True)
    parameters = {name: torch.Size(adapter.shape(name, base.shapes[home])).numel() for name, home in layout.items()}
    return _facts(destination, base, parameters, files) | {"changed": len(adapter.changes)}


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
    write_model_config(model_config, destination, model.main_dtype(), untied=False)
    copy_files(trained, destination, (*MODEL_FILES, *TOKENIZER_FILES))
    copy_card(trained, destination, merged=False)
    return _facts(destination, model, {name: torch.Size(shape).numel() for name, shape in model.shapes.items()}, files) | {"changed": 0}


def _tie(folder: Path, base: Checkpoint, adapter: Adapter) -> Tie | None:
    """Only what lies outside the numbered layers can be tied, so most adapters are merged without importing a model class."""
    outside = any(not re.search(r"\.\d+\.", name) for name in adapter.changes)
    return find_tie(folder, base) if outside else None


def _check_targets(layout: Layout, adapter: Adapter, tie: Tie | None) -> None:
    known = layout.keys() | ({tie.head} if tie else set())
    missing = sorted(adapter.changes.keys() - known)
    if missing:
        raise RegrowError(
            f"{ADAPTER} changes {missing[0]}, which the base does not have ({len(missing)} such tensors).",
            "The adapter belongs to another model, or to one that transformers loads under other names than it stores.",
        )


def _move_ends(layout: dict[str, str], base: Checkpoint, adapter: Adapter, tie: Tie | None) -> None:
    if tie is not None:
        layout.pop(tie.head, None)
        if must_untie(tie, base, adapter):
            layout[tie.head] = tie.embedding


def _resized_vocabulary(base: Checkpoint, adapter: Adapter, layout: Layout, stated: Any) -> int | None:
    """Rows of embedding and head where the adapter holds more, or fewer, than the base's ``stated``; None where it does not.

    Raises:
        RegrowError: it changes the size of anything else, or of one end only.
    """
    before = {name: base.shapes[home] for name, home in layout.items()}
    after = {name: adapter.shape(name, shape) for name, shape in before.items()}
    resized = [name for name in layout if before[name] != after[name]]
    if not resized:
        return None
    rows, new = before[resized[0]][0], after[resized[0]][0]
    if rows != stated:
        raise RegrowError(f"{ADAPTER} replaces {resized[0]} by a tensor of {after[resized[0]]}, but the base has {before[resized[0]]}.")
    ends = [name for name, shape in before.items() if shape[:1] == (rows,) and not re.search(r"\.\d+\.", name)]
    odd = sorted({*resized} ^ {*ends}) or [name for name in resized if after[name][0] != new]
    if odd:
        raise RegrowError(
            f"{ADAPTER} resizes {resized[0]} from {rows} rows to {new}, and {odd[0]} has {before[odd[0]][0]} and then {after[odd[0]][0]}.",
            "A resized vocabulary needs embedding and output head in the adapter.",
        )
    return new


def _facts(destination: Path, model: Checkpoint, parameters: Mapping[str, int], files: list[str]) -> dict[str, Any]:
    return {
        "tensors": len(parameters),
        "parameters": sum(parameters.values()),
        "bytes": sum((destination / name).stat().st_size for name in files),
        "files": len(files),
        "dtype": model.main_dtype(),
    }

"""A model directory from an adapter and its base, or from trained weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import RegrowError
from pipeline.progress import Progress
from stages.merge.card import copy_card
from stages.merge.changes import ADAPTER, Adapter
from stages.merge.checkpoint import Checkpoint, Form
from stages.merge.folder import MODEL_FILES, TOKENIZER_FILES, copy_files, read_model_config, write_model_config
from stages.merge.plan import Layout, Plan
from stages.merge.replication import with_layers
from stages.merge.shards import INDEX, write_files


def merge_adapter(plan: Plan, base_folder: Path, trained: Path, destination: Path, limit: int, progress: Progress) -> dict[str, Any]:
    """Fold the adapter in ``trained`` into the base and write the merged model to ``destination``.

    Returns:
        Facts about the result: tensors, changed, parameters, bytes, files, dtype.
    """
    base, adapter = plan.base, plan.adapter
    forms = {name: plan.form(name) for name in plan.layout}
    vocabulary = _resized_vocabulary(base, adapter, plan.layout, plan.config.get("vocab_size"))
    with progress.task("merge", total=len(forms), unit="tensors") as task:
        files = write_files(destination, forms, limit, plan.merge, task)
    changed = with_layers(plan.config, adapter.config.layer_replication) | ({} if vocabulary is None else {"vocab_size": vocabulary})
    untied = plan.tie is not None and plan.tie.head in plan.layout
    write_model_config({**plan.config, **changed}, destination, base.main_dtype(), untied=untied)
    copy_files(base_folder, destination, MODEL_FILES)
    copy_files(trained, destination, TOKENIZER_FILES)
    copy_card(trained, destination, merged=True)
    return _facts(destination, base, forms, files) | {"changed": len(adapter.changes)}


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
        with progress.task("merge", total=len(model.shapes), unit="tensors") as task:
            files = write_files(destination, {name: model.form(name) for name in model.shapes}, limit, model.read, task)
    write_model_config(model_config, destination, model.main_dtype(), untied=False)
    copy_files(trained, destination, (*MODEL_FILES, *TOKENIZER_FILES))
    copy_card(trained, destination, merged=False)
    return _facts(destination, model, {name: model.form(name) for name in model.shapes}, files) | {"changed": 0}


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


def _facts(destination: Path, model: Checkpoint, forms: Mapping[str, Form], files: list[str]) -> dict[str, Any]:
    return {
        "tensors": len(forms),
        "parameters": sum(torch.Size(form.shape).numel() for form in forms.values()),
        "bytes": sum((destination / name).stat().st_size for name in files),
        "files": len(files),
        "dtype": model.main_dtype(),
    }

"""A plain model directory from the tensors of a sharded checkpoint, in the names, dtype and configuration of its base."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from torch import Tensor

from pipeline.errors import RegrowError
from pipeline.progress import Progress
from stages.merge.checkpoint import Checkpoint, Form
from stages.merge.folder import MODEL_FILES, TOKENIZER_FILES, copy_files, read_model_config, write_model_config
from stages.merge.sharded.fsdp import TABLE, FsdpShards
from stages.merge.sharded.zero import ZeroShards
from stages.merge.shards import write_files
from stages.merge.tied import Tie, find_tie

_FSDP = "pytorch_model_fsdp_0"
# What wrappers put into names: FSDP 1, activation checkpointing, torch.compile.
_WRAPPERS = re.compile(r"(_fsdp_wrapped_module|_checkpoint_wrapped_module|_orig_mod)\.")
# accelerate saves {"model": weights}; DDP and engines add module.
_BASE = "Name the model that it was trained from with --base."
_PREFIX = re.compile(r"((model|module)\.)*")


class Shards(Protocol):
    """Tensors of a sharded checkpoint by name, with their shapes."""

    shapes: dict[str, tuple[int, ...]]

    def read(self, name: str) -> Tensor:
        """A tensor, put together."""


def write_model(shards: Path, output: Path, base: Path, tokenizer: Path | None, limit: int, progress: Progress) -> str:
    """As :func:`stages.merge.sharded.merge_sharded`."""
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise RegrowError(f"{output} exists already.", "Name another folder with --output, or move it away first.")
    config, stored, opened = read_model_config(base), Checkpoint(base), open_shards(shards)
    tie = find_tie(base, stored)
    names = place(opened, stored, tie)
    untied = tie is not None and tie.head in names and not opened.read(names[tie.head]).equal(opened.read(names[tie.embedding]))
    layout = {name: own for name, own in sorted(names.items()) if tie is None or name != tie.head or untied}
    homes = {name: tie.embedding if tie is not None and name not in stored else name for name in layout}
    vocabulary = _vocabulary({name: (stored.shapes[homes[name]], opened.shapes[own]) for name, own in layout.items()}, config)
    forms = {name: Form(stored.dtypes[homes[name]], opened.shapes[own]) for name, own in layout.items()}
    draft = output.parent / f".{output.name}.partial"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    with progress.task("merge", total=len(forms), unit="tensors") as task:
        files = write_files(draft, forms, limit, lambda name: opened.read(layout[name]).to(forms[name].dtype), task)
    write_model_config(config | vocabulary, draft, stored.main_dtype(), untied=untied)
    copy_files(base, draft, MODEL_FILES)
    if tokenizer is not None:
        copy_files(tokenizer, draft, TOKENIZER_FILES)
    output.unlink() if output.is_symlink() else shutil.rmtree(output, ignore_errors=True)
    draft.rename(output)
    without = "" if (output / "tokenizer.json").is_file() else " It has no tokenizer: there was none beside the base."
    return f"Wrote {output}: {len(forms)} tensors in {len(files)} {'file' if len(files) == 1 else 'files'}, {stored.main_dtype()}.{without}"


def open_shards(folder: Path) -> Shards:
    """The checkpoint in ``folder``, or in the folder of it that DeepSpeed or accelerate made.

    Raises:
        RegrowError: there is none.
    """
    if not folder.is_dir():
        raise RegrowError(f"{folder} is not a folder.", "Name a checkpoint: a folder that holds *.distcp or *_optim_states.pt files.")
    for inside in (folder, folder / _FSDP):
        if (inside / TABLE).is_file() or any(inside.glob("*.distcp")):
            return FsdpShards(inside)
    latest = (folder / "latest").read_text("utf-8", errors="replace").strip() if (folder / "latest").is_file() else ""
    steps = [folder, *([folder / latest] if latest else sorted(folder.glob("global_step*")))]
    for inside in steps:
        if any(inside.glob("*_optim_states.pt")):
            return ZeroShards(inside)
    if any(folder.glob("pytorch_model_fsdp*_rank*.bin")):
        raise RegrowError(f"{folder} holds one pickle for each process.", "Save with SHARDED_STATE_DICT (accelerate's default, DCP).")
    raise RegrowError(
        f"{folder} holds no sharded checkpoint.",
        f"FSDP writes {_FSDP}/ with {TABLE} and *.distcp; DeepSpeed writes global_step*/ with *_optim_states.pt.",
    )


def place(shards: Shards, base: Checkpoint, tie: Tie | None) -> dict[str, str]:
    """Name in the base → name in the checkpoint, for every tensor of the base, and for a tied head where there is one.

    Raises:
        RegrowError: a tensor is missing, or there is one that the base does not have.
    """
    plain = {_WRAPPERS.sub("", name): name for name in shards.shapes}
    if adapted := next((name for name in plain if ".lora_" in name), None):
        works = "Training saves adapters whole: `regrow merge` merges data/trained."
        raise RegrowError(f"The checkpoint is of an adapter ({adapted}).", works)
    wanted = [name for name in base.shapes if tie is None or name != tie.head]
    prefixes = {name[: len(name) - len(wanted[0])] for name in plain if name.endswith(wanted[0])}
    fitting = [prefix for prefix in sorted(prefixes) if _PREFIX.fullmatch(prefix)]
    if not fitting:
        raise RegrowError(f"The checkpoint has no {wanted[0]}.", _BASE)
    prefix = fitting[0]
    found = {name.removeprefix(prefix): own for name, own in plain.items() if name.startswith(prefix)}
    if missing := sorted(set(wanted) - found.keys()):
        raise RegrowError(f"The checkpoint has no {missing[0]} ({len(missing)} such).", _BASE)
    optional = {tie.head} if tie else set()
    if odd := sorted(name for name in found.keys() - set(wanted) - optional if not name.startswith(("optim.", "optimizer."))):
        raise RegrowError(f"The checkpoint holds {odd[0]}, which the base does not have ({len(odd)} such).", _BASE)
    return {name: found[name] for name in [*wanted, *(optional & found.keys())]}


def _vocabulary(shapes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]], config: Mapping[str, object]) -> dict[str, int]:
    """What config.json says of tokens that training added: the one way in which shapes may differ from the base's."""
    resized = {name: pair for name, pair in shapes.items() if pair[0] != pair[1]}
    rows = {after[:1] for _, after in resized.values()}
    for name, (before, after) in resized.items():
        if before[0] != config.get("vocab_size") or before[1:] != after[1:] or len(rows) > 1:
            raise RegrowError(f"The checkpoint has {name} of {after}, and the base {before}.", _BASE)
    return {"vocab_size": rows.pop()[0]} if rows else {}

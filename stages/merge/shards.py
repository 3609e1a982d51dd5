"""Writes tensors as the safetensors files of a Hugging Face model, none larger than asked, one tensor in memory at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from pipeline.digest import canonical_json
from pipeline.progress import Task
from stages.merge.checkpoint import DTYPES, Form

INDEX = "model.safetensors.index.json"
# A header entry is the name and about 90 characters of dtype, shape and offsets; two offsets of 15 digits fit.
_ENTRY, _HEADER = 160, 64
_PLACES = {dtype: (place, name) for place, (name, dtype) in enumerate(DTYPES.items())}


def plan_files(sizes: Mapping[str, int], limit: int) -> list[list[str]]:
    """Fill one file after the other, in order.

    Args:
        sizes: bytes of each tensor.
        limit: largest file in bytes, header included. A tensor larger than that gets a file to itself.
    """
    files: list[list[str]] = [[]]
    room = limit - _HEADER
    for name, size in sizes.items():
        cost = size + len(name.encode()) + _ENTRY
        if cost > room and files[-1]:
            files.append([])
            room = limit - _HEADER
        files[-1].append(name)
        room -= cost
    return files


def write_files(folder: Path, forms: Mapping[str, Form], limit: int, tensor: Callable[[str], Tensor], task: Task) -> list[str]:
    """Ask ``tensor`` for each name, once, and write the files, with an index when there are several.

    Returns:
        The names of the weight files.
    """
    sizes = {name: form.nbytes for name, form in forms.items()}
    files = plan_files(sizes, limit)
    names = [_file_name(number, len(files)) for number in range(len(files))]
    for name, members in zip(names, files, strict=True):
        with (folder / name).open("wb") as file:
            _write_file(file, {member: forms[member] for member in members}, tensor, task)
    if len(files) > 1:
        home = {member: name for name, members in zip(names, files, strict=True) for member in members}
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": home}
        (folder / INDEX).write_text(canonical_json(index), encoding="utf-8")
    return names


def _write_file(file: BinaryIO, forms: Mapping[str, Form], tensor: Callable[[str], Tensor], task: Task) -> None:
    """The bytes that ``safetensors.torch.save_file`` writes; that function wants all tensors of a file at once."""
    order = sorted(forms, key=lambda name: (-_PLACES[forms[name].dtype][0], name.encode()))
    file.write(_header(order, forms))
    for name in order:
        made, form = tensor(name), forms[name]
        if (made.dtype, tuple(made.shape)) != (form.dtype, form.shape):
            raise ValueError(f"{name} was to be {form}, and is {made.dtype} {tuple(made.shape)}")
        if made.numel():
            file.write(made.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        task.advance()


def _header(order: list[str], forms: Mapping[str, Form]) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in order:
        start, end = end, end + forms[name].nbytes
        entries[name] = {"dtype": _PLACES[forms[name].dtype][1], "shape": list(forms[name].shape), "data_offsets": [start, end]}
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _file_name(number: int, count: int) -> str:
    return "model.safetensors" if count == 1 else f"model-{number + 1:05d}-of-{count:05d}.safetensors"

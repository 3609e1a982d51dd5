"""Writes tensors as the safetensors files of a Hugging Face model, none larger than asked, one file in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from pipeline.digest import canonical_json
from pipeline.progress import Task

INDEX = "model.safetensors.index.json"
# A header entry is the name and about 90 characters of dtype, shape and offsets; two offsets of 15 digits fit.
_ENTRY, _HEADER = 160, 64


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


def write_files(folder: Path, sizes: Mapping[str, int], limit: int, tensor: Callable[[str], Tensor], task: Task) -> list[str]:
    """Ask ``tensor`` for each name, in order, and write the files, with an index when there are several.

    Returns:
        The names of the weight files.
    """
    files = plan_files(sizes, limit)
    names = [_file_name(number, len(files)) for number in range(len(files))]
    for name, members in zip(names, files, strict=True):
        save_file(_collect(members, tensor, task), folder / name, metadata={"format": "pt"})
    if len(files) > 1:
        home = {member: name for name, members in zip(names, files, strict=True) for member in members}
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": home}
        (folder / INDEX).write_text(canonical_json(index), encoding="utf-8")
    return names


def _collect(members: list[str], tensor: Callable[[str], Tensor], task: Task) -> dict[str, Tensor]:
    tensors = {}
    for member in members:
        tensors[member] = tensor(member).contiguous()
        task.advance()
    return tensors


def _file_name(number: int, count: int) -> str:
    return "model.safetensors" if count == 1 else f"model-{number + 1:05d}-of-{count:05d}.safetensors"

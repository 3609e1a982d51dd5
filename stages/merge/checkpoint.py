"""The tensors of a folder of safetensors files by name, read one at a time."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from pipeline.errors import RegrowError

DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3": torch.float8_e4m3fn,
    "I16": torch.int16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "F32": torch.float32,
    "F64": torch.float64,
    "I64": torch.int64,
}
"""What safetensors calls them, in its order: in a file, tensors of the last stand first, so that all are aligned."""


@dataclass(frozen=True)
class Form:
    """Of a tensor that is to be written."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Of its data."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize


class Checkpoint:
    """Tensors of the files that match ``pattern``, read when asked for.

    Reads with pread and not through a memory map, whose pages would stay resident until the whole model is.

    Attributes:
        shapes: every tensor's shape, in the order of files and then of names.
        dtypes: every tensor's dtype.
        files: the files, sorted.
    """

    def __init__(self, folder: Path, pattern: str = "model*.safetensors") -> None:
        self.files = sorted(folder.glob(pattern))
        if not self.files:
            raise RegrowError(f"{folder} holds no {pattern}.", "Weights must be safetensors files.")
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, torch.dtype] = {}
        self._home: dict[str, Any] = {}
        self._begins: dict[str, tuple[Path, int]] = {}
        for file in self.files:
            self._index(file)

    def __contains__(self, name: str) -> bool:
        return name in self._home

    def form(self, name: str) -> Form:
        """Of a tensor."""
        return Form(self.dtypes[name], self.shapes[name])

    def main_dtype(self) -> str:
        """The dtype that holds most bytes: what transformers should load the model in."""
        held: Counter[torch.dtype] = Counter()
        for name, dtype in self.dtypes.items():
            if dtype.is_floating_point:
                held[dtype] += self.form(name).nbytes
        return str(max(held, key=lambda dtype: (held[dtype], str(dtype)))).removeprefix("torch.")

    def read(self, name: str) -> torch.Tensor:
        """A tensor as it is stored."""
        tensor: torch.Tensor = self._home[name].get_tensor(name)
        return tensor

    def rows(self, name: str, rows: slice) -> torch.Tensor:
        """Consecutive rows of a tensor, as they are stored. safetensors' own slices read, with pread, the whole tensor each time."""
        if rows == slice(None):
            return self.read(name)
        (file, begin), (count, *width) = self._begins[name], self.shapes[name]
        start, stop, _ = rows.indices(count)
        row = Form(self.dtypes[name], tuple(width)).nbytes
        data = np.fromfile(file, np.uint8, (stop - start) * row, offset=begin + start * row)
        return torch.from_numpy(data).view(self.dtypes[name]).reshape(stop - start, *width)

    def _index(self, file: Path) -> None:
        try:
            opened: Any = safe_open(str(file), framework="pt", backend="pread")
        except SafetensorError as error:
            raise RegrowError(f"{file} is not a readable safetensors file: {error}.") from None
        for name in sorted(opened.keys()):
            if name in self._home:
                raise RegrowError(f"{file} holds {name}, which an earlier file of the folder holds too.")
            stored = opened.get_slice(name)
            self._home[name] = opened
            self.shapes[name] = tuple(stored.get_shape())
            self.dtypes[name] = _dtype(file, name, stored.get_dtype())
        for name, begin in _begins(file).items():
            self._begins[name] = file, begin


def _begins(file: Path) -> dict[str, int]:
    """Where the data of each tensor begins in a file: behind eight bytes of the header's length, and the header."""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        header: dict[str, Any] = json.loads(opened.read(length))
    return {name: 8 + length + entry["data_offsets"][0] for name, entry in header.items() if name != "__metadata__"}


def _dtype(file: Path, name: str, stored: str) -> torch.dtype:
    if stored not in DTYPES:
        raise RegrowError(f"{file} stores {name} as {stored}; merge knows {', '.join(DTYPES)}.")
    return DTYPES[stored]

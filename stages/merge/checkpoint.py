"""The tensors of a folder of safetensors files by name, read one at a time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from pipeline.errors import RegrowError

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


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
        for file in self.files:
            self._index(file)

    def __contains__(self, name: str) -> bool:
        return name in self._home

    def nbytes(self, name: str) -> int:
        """Bytes of a tensor's data."""
        return torch.Size(self.shapes[name]).numel() * self.dtypes[name].itemsize

    def main_dtype(self) -> str:
        """The dtype that holds most bytes: what transformers should load the model in."""
        held: Counter[torch.dtype] = Counter()
        for name, dtype in self.dtypes.items():
            if dtype.is_floating_point:
                held[dtype] += self.nbytes(name)
        return str(max(held, key=lambda dtype: (held[dtype], str(dtype)))).removeprefix("torch.")

    def read(self, name: str) -> torch.Tensor:
        """A tensor as it is stored."""
        tensor: torch.Tensor = self._home[name].get_tensor(name)
        return tensor

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


def _dtype(file: Path, name: str, stored: str) -> torch.dtype:
    if stored not in _DTYPES:
        raise RegrowError(f"{file} stores {name} as {stored}; merge knows {', '.join(_DTYPES)}.")
    return _DTYPES[stored]

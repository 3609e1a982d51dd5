"""Where two safetensors files differ first. Read as bytes: types that numpy does not know are compared too.

Format: https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1", "BOOL": "?"}


@dataclass(frozen=True)
class _Tensor:
    dtype: str
    shape: tuple[int, ...]
    data: Any  # uint8, mapped from the file


def difference(expected: Path, found: Path) -> str | None:
    """The first tensor, by name, that differs, and its first element that does; ``None``: all are the same."""
    left, right = _tensors(expected), _tensors(found)
    for name in sorted(left.keys() | right.keys()):
        if name not in left or name not in right:
            return f"tensor {name} {'was not there before' if name in right else 'is not there now'}"
        if where := _in_tensor(left[name], right[name]):
            return f"tensor {name} {where}"
    return None


def _tensors(path: Path) -> dict[str, _Tensor]:
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
    data = np.memmap(path, np.uint8, mode="r", offset=8 + length)
    facts = {name: fact for name, fact in header.items() if name != "__metadata__"}
    return {name: _Tensor(fact["dtype"], tuple(fact["shape"]), data[slice(*fact["data_offsets"])]) for name, fact in facts.items()}


def _in_tensor(left: _Tensor, right: _Tensor) -> str | None:
    if (left.dtype, left.shape) != (right.dtype, right.shape):
        return f"is {left.dtype} {list(left.shape)} before, {right.dtype} {list(right.shape)} now"
    if np.array_equal(left.data, right.data):
        return None
    count = max(1, int(np.prod(left.shape)))
    unequal = (left.data != right.data).reshape(count, -1).any(axis=1)
    first = int(np.flatnonzero(unequal)[0])
    place = ", ".join(str(int(i)) for i in np.unravel_index(first, left.shape)) if left.shape else ""
    values = f"{_element(left, first, count)} before, {_element(right, first, count)} now"
    return f"{left.dtype} {list(left.shape)}: element ({place}): {values}; {int(unequal.sum()):,} of {count:,} differ"


def _element(tensor: _Tensor, number: int, count: int) -> str:
    width = len(tensor.data) // count
    raw = tensor.data[number * width : (number + 1) * width].tobytes()
    if tensor.dtype == "BF16":
        return f"{np.frombuffer(bytes(2) + raw, '<f4')[0]:.9g}"
    if tensor.dtype not in _TYPES:
        return str(raw.hex())
    value = np.frombuffer(raw, _TYPES[tensor.dtype])[0]
    return f"{value:.9g}" if tensor.dtype.startswith("F") else str(value)

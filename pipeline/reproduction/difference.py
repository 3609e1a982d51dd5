"""Where two files that should be the same differ first: the tensor, the row, the field, the line or the byte."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.artifact import MANIFEST
from pipeline.reproduction import tensors

_LINES = frozenset({".jsonl", ".csv", ".txt", ".md", ".html", ".svg", ".jinja", ".py"})
_BLOCK = 2**20


def first_difference(expected: Path, found: Path) -> str | None:
    """The first file of two folders that differs, by name, and where in it; ``None``: none does. The manifest comes last."""
    names = {path.relative_to(folder).as_posix() for folder in (expected, found) for path in folder.rglob("*") if path.is_file()}
    for name in sorted(names, key=lambda name: (name == MANIFEST, name)):
        if not (expected / name).is_file():
            return f"{name}: was not there before"
        if not (found / name).is_file():
            return f"{name}: was there before, and is not written now"
        if where := difference_in_file(expected / name, found / name):
            return f"{name}: {where}"
    return None


def difference_in_file(expected: Path, found: Path) -> str | None:
    """Where two files differ first; ``None`` where they are the same, byte for byte."""
    position = _first_byte(expected, found)
    if position is None:
        return None
    compare = _BY_KIND.get(expected.suffix) or (_in_lines if expected.suffix in _LINES else None)
    try:
        where = compare(expected, found) if compare else None
    except (ValueError, KeyError, OSError):  # one of them is damaged: then bytes are all that can be said
        where = None
    return where or f"byte {position} ({_size(expected)} bytes before, {_size(found)} now)"


def _size(path: Path) -> int:
    return path.stat().st_size


def _first_byte(expected: Path, found: Path) -> int | None:
    with expected.open("rb") as a, found.open("rb") as b:
        position = 0
        while True:
            left, right = a.read(_BLOCK), b.read(_BLOCK)
            if left != right:
                same = (i for i, (x, y) in enumerate(zip(left, right, strict=False)) if x != y)
                return position + next(same, min(len(left), len(right)))
            if not left:
                return None
            position += len(left)


def _in_lines(expected: Path, found: Path) -> str | None:
    with expected.open(encoding="utf-8") as a, found.open(encoding="utf-8") as b:
        number = 0
        for number, (left, right) in enumerate(zip(a, b, strict=False)):
            if left != right:
                return f"{_row(expected, number)}: {_shown(left)} before, {_shown(right)} now"
        return f"{_row(expected, number + 1)} is in one of them only"


def _row(path: Path, number: int) -> str:
    return f"row {number}" if path.suffix == ".jsonl" else f"line {number + 1}"


def _shown(value: Any) -> str:
    text = repr(value.rstrip("\n") if isinstance(value, str) else value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _in_json(expected: Path, found: Path) -> str | None:
    left, right = (json.loads(path.read_text(encoding="utf-8")) for path in (expected, found))
    return next(_fields(left, right, ""), None)


def _fields(left: Any, right: Any, place: str) -> Iterator[str]:
    if isinstance(left, dict) and isinstance(right, dict):
        for key in sorted(left.keys() | right.keys()):
            yield from _fields(left.get(key), right.get(key), f"{place}.{key}" if place else key)
    elif isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        for number, pair in enumerate(zip(left, right, strict=True)):
            yield from _fields(*pair, f"{place}[{number}]")
    elif left != right:
        yield f"{place}: {_shown(left)} before, {_shown(right)} now"


def _in_arrow(expected: Path, found: Path) -> str | None:
    import pyarrow as pa

    def read(path: Path) -> Any:
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()

    return _in_tables(read(expected), read(found))


def _in_parquet(expected: Path, found: Path) -> str | None:
    import pyarrow.parquet as pq

    return _in_tables(pq.read_table(expected), pq.read_table(found))


def _in_tables(left: Any, right: Any) -> str | None:
    """The first row that differs, by halving."""
    if left.schema != right.schema:
        return f"columns {left.schema.names} before, {right.schema.names} now, or of another type"
    low, high = 0, min(len(left), len(right))
    if left.slice(0, high).equals(right.slice(0, high)):
        return f"{len(left)} rows before, {len(right)} now" if len(left) != len(right) else None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if left.slice(low, middle - low).equals(right.slice(low, middle - low)) else (low, middle)
    name = next(name for name in left.schema.names if left[name][low] != right[name][low])
    return f"row {low}, column {name}: {_shown(left[name][low].as_py())} before, {_shown(right[name][low].as_py())} now"


_BY_KIND: Mapping[str, Callable[[Path, Path], str | None]] = {
    ".safetensors": tensors.difference,
    ".json": _in_json,
    ".arrow": _in_arrow,
    ".parquet": _in_parquet,
}

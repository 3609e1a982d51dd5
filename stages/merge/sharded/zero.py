"""DeepSpeed's ZeRO checkpoints: each process's part of the float32 weights, in the files of the optimizer's state.

The layout is that of DeepSpeed's own zero_to_fp32.py. Stages 1 and 2 lay the parameters of a group end to end and cut the whole
into one piece for each process; stage 3 cuts every parameter. Files are read by torch with ``weights_only``, mapped and not
copied; objects of DeepSpeed's own in them (the loss scaler and the like) become empty shells, and nothing of it is imported.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from pipeline.errors import RegrowError

_OPTIMIZER = "*_optim_states.pt"
_MODEL = "*_model_states.pt"
_COPY = "Copy the checkpoint again, whole."
_OTHERWISE = "zero_to_fp32.py, which DeepSpeed puts beside its checkpoints, can read those that it knows."


class ZeroShards:
    """The weights of a ZeRO checkpoint by name, each put together when asked for.

    Attributes:
        shapes: every tensor's shape.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[str, Callable[[], Tensor]] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        states, models = ([_open(path) for path in _files(folder, pattern)] for pattern in (_OPTIMIZER, _MODEL))
        try:
            self._arrange([state["optimizer_state_dict"] for state in states], models)
        except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
            raise RegrowError(f"{folder} is laid out otherwise than DeepSpeed 0.19 does it: {error!r}.", _OTHERWISE) from None

    def read(self, name: str) -> Tensor:
        """A tensor, float32 where it was trained."""
        return self._read[name]()

    def _arrange(self, states: Sequence[Mapping[str, Any]], models: Sequence[Mapping[str, Any]]) -> None:
        stage = _number(states[0]["zero_stage"])
        self._check_complete(states)
        self._add_whole(models[0], stage)
        if stage in (1, 2):
            self._add_frozen(models[:1])
            self._add_groups([state["single_partition_of_fp32_groups"] for state in states], models[0]["param_shapes"], states[0])
        elif stage == 3:
            self._add_frozen(models)
            self._add_cut([state["fp32_flat_groups"] for state in states], models[0]["param_shapes"])
        else:
            raise RegrowError(f"{self._folder} is of ZeRO stage {stage}; 1, 2 and 3 can be read.", _OTHERWISE)
        for alias, name in models[0].get("shared_params", {}).items():
            if name in self._read:
                self._put(alias, self.shapes[name], self._read[name])

    def _put(self, name: str, shape: Sequence[int], read: Callable[[], Tensor]) -> None:
        self.shapes[name], self._read[name] = tuple(shape), read

    def _check_complete(self, states: Sequence[Mapping[str, Any]]) -> None:
        count = states[0].get("partition_count")
        wanted = _number(max(count) if isinstance(count, list | tuple) else count)
        if wanted != len(states):
            raise RegrowError(f"{self._folder} has {len(states)} files {_OPTIMIZER}, and {wanted} processes wrote it.", _COPY)

    def _add_whole(self, model: Mapping[str, Any], stage: int) -> None:
        """Buffers; below stage 3 all that the model has too, since stage 1 keeps what was not trained nowhere else."""
        for name in model.get("buffer_names", ()) if stage == 3 else model["module"]:
            if isinstance(value := model["module"].get(name), Tensor):
                self._put(name, value.shape, lambda value=value: value)  # type: ignore[misc]

    def _add_frozen(self, models: Sequence[Mapping[str, Any]]) -> None:
        """Parameters that were not trained lie beside the model: whole, or one piece in each file (stage 3)."""
        for name, shape in (models[0].get("frozen_param_shapes") or {}).items():
            pieces = [model["frozen_param_fragments"][name] for model in models]
            self._put(name, shape, lambda pieces=pieces, shape=shape: _joined(pieces, shape))  # type: ignore[misc]

    def _add_groups(self, ranks: Sequence[Sequence[Tensor]], groups: Sequence[Mapping[str, Any]], state: Mapping[str, Any]) -> None:
        paddings = state.get("param_alignment_paddings")
        for number, shapes in enumerate(groups):
            pieces, offset = [rank[number] for rank in ranks], 0
            for index, (name, shape) in enumerate(shapes.items()):
                first, size = offset, math.prod(shape)
                self._put(name, shape, lambda p=pieces, f=first, s=shape: _joined(_span(p, f, math.prod(s)), s))  # type: ignore[misc]
                offset += size + (paddings[number][index] if paddings is not None else 0)
            self._check_used(offset, sum(len(piece) for piece in pieces), 2 * len(ranks))

    def _add_cut(self, ranks: Sequence[Sequence[Tensor]], groups: Sequence[Mapping[str, Any]]) -> None:
        offset = 0
        for name, shape in ((name, shape) for shapes in groups for name, shape in shapes.items()):
            size = math.ceil(math.prod(shape) / len(ranks))
            self._put(name, shape, lambda f=offset, n=size, s=shape: _joined([q for r in ranks for q in _span(r, f, n)], s))  # type: ignore[misc]
            offset += size
        self._check_used(offset, sum(len(piece) for piece in ranks[0]), 1)

    def _check_used(self, used: int, held: int, step: int) -> None:
        """All of what is held is some parameter's, but for what fills up the last step."""
        if math.ceil(used / step) != math.ceil(held / step):
            raise RegrowError(f"{self._folder}: the parameters have {used} numbers, and its files hold {held}.", _OTHERWISE)


class _Shell:
    """Stands for an object of a class that is not wanted. Does nothing with what it is given."""

    def __init__(self, *args: Any) -> None:
        self.args = args

    def __new__(cls, *args: Any) -> _Shell:
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        pass


def _open(path: Path) -> dict[str, Any]:
    try:
        with safe_globals([(_Shell, name) for name in get_unsafe_globals_in_checkpoint(str(path))]):
            value = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        if isinstance(value, dict) and ("module" in value or "zero_stage" in value["optimizer_state_dict"]):
            return value
    except Exception as error:  # a broken file raises anything
        reason = " ".join(str(error).split())[:300]
        raise RegrowError(f"{path} cannot be read as a file of a ZeRO checkpoint: {reason}.", _OTHERWISE) from None
    raise RegrowError(f"{path} is no file of a ZeRO checkpoint.", _OTHERWISE)


def _files(folder: Path, pattern: str) -> list[Path]:
    """By rank: the tenth comes after the ninth."""
    found = sorted(folder.glob(pattern), key=lambda path: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)])
    if not found:
        raise RegrowError(f"{folder} has no {pattern}.", _COPY)
    if odd := [path.name for path in found if re.search(r"mp_rank_(?!00)", path.name) or path.name.startswith("expert")]:
        raise RegrowError(f"{folder} holds {odd[0]}: a model that is split across processes in other ways than by ZeRO.", _OTHERWISE)
    return found


def _number(value: Any) -> int:
    value = value.args[0] if isinstance(value, _Shell) and value.args else value
    return int(value) if isinstance(value, int) else -1


def _span(pieces: Sequence[Tensor], offset: int, size: int) -> list[Tensor]:
    """``size`` numbers from ``offset`` on of what the pieces hold end to end."""
    return list(_overlaps(pieces, offset, offset + size))


def _overlaps(pieces: Sequence[Tensor], start: int, end: int) -> Iterator[Tensor]:
    begin = 0
    for piece in pieces:
        if begin < end and begin + len(piece) > start:
            yield piece[max(0, start - begin) : end - begin]
        begin += len(piece)


def _joined(pieces: Sequence[Tensor], shape: Sequence[int]) -> Tensor:
    return torch.cat([piece.flatten() for piece in pieces])[: math.prod(shape)].reshape(tuple(shape))

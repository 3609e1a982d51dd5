"""Activations wait for the backward pass somewhere else than in the memory of the device: in RAM or on disk."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal
from weakref import finalize

import torch

from pipeline.errors import RegrowError
from pipeline.options.views import TrainOptions

_LEAST = 1024  # numbers: less is not worth the way

Keeping = Callable[[], AbstractContextManager[Any]]
"""Makes the context of one forward pass."""


def choose_place(options: TrainOptions) -> Literal["memory", "pinned", "plain", "disk"]:
    """Where activations wait: in the device's memory, in page-locked or plain RAM, or on disk.

    Raises:
        RegrowError: RAM was asked for where the device's memory is RAM.
    """
    asked = options.activation_offloading or {"offload": True, "offload_disk": "disk"}.get(str(options.gradient_checkpointing), False)
    if asked is False:
        return "memory"
    if asked == "disk":
        return "disk"
    if not torch.cuda.is_available():
        raise RegrowError(
            f"activation_offloading: {str(asked).lower()} moves activations from a GPU to RAM, and this machine has no CUDA device.",
            "On a CPU they are in RAM already; activation_offloading: disk works here too.",
        )
    return "plain" if asked == "legacy" else "pinned"


def keep_activations(options: TrainOptions, model: torch.nn.Module, folder: Path) -> Keeping:
    """A maker of contexts in which a forward pass puts what it saves where the options say. ``folder`` is for the disk."""
    place = choose_place(options)
    if place == "memory":
        return nullcontext
    if place == "disk":
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
        folder.mkdir(parents=True)
    store = Store(model, folder if place == "disk" else None, pinned=place == "pinned")
    return store.keeping


class Away:
    """A tensor that is somewhere else: its device and dtype, and where it is."""

    def __init__(self, tensor: torch.Tensor, place: Path | torch.Tensor) -> None:
        self.device, self.dtype, self.shape, self.place = tensor.device, tensor.dtype, tensor.shape, place


class Store:
    """Takes tensors away and brings them back, bit for bit. Weights stay: they are in the device's memory in any case."""

    def __init__(self, model: torch.nn.Module, folder: Path | None, *, pinned: bool) -> None:
        self._model, self._folder, self._pinned, self._count = model, folder, pinned, 0
        self._weights = self._addresses()

    def keeping(self) -> AbstractContextManager[Any]:
        """The context of one forward pass."""
        self._weights = self._addresses()  # once for each: looking for them at every tensor takes longer than a GPU computes
        return torch.autograd.graph.saved_tensors_hooks(self.pack, self.unpack)

    def pack(self, tensor: torch.Tensor) -> torch.Tensor | Away:
        """What autograd keeps instead of ``tensor``."""
        if tensor.numel() < _LEAST or tensor.layout is not torch.strided or self._is_weight(tensor):
            return tensor
        if self._folder is not None:
            return self._write(tensor, self._folder)
        copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=self._pinned)
        # The copy stands in the device's queue, before whatever uses the memory next.
        return Away(tensor, copy.copy_(tensor, non_blocking=self._pinned))

    def unpack(self, kept: torch.Tensor | Away) -> torch.Tensor:
        """The tensor that was packed."""
        if isinstance(kept, torch.Tensor):
            return kept
        if isinstance(kept.place, torch.Tensor):
            return kept.place.to(kept.device, non_blocking=self._pinned)
        size = kept.place.stat().st_size
        raw = torch.from_file(str(kept.place), shared=False, size=size, dtype=torch.uint8)
        return raw.view(kept.dtype).view(kept.shape).to(kept.device)

    def _write(self, tensor: torch.Tensor, folder: Path) -> Away:
        path = folder / f"{self._count}.bin"
        self._count += 1
        tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tofile(path)
        away = Away(tensor, path)
        finalize(away, path.unlink, missing_ok=True)  # with the graph that holds it
        return away

    def _is_weight(self, tensor: torch.Tensor) -> bool:
        """Autograd hands over aliases of weights; they share their memory."""
        return tensor.untyped_storage().data_ptr() in self._weights

    def _addresses(self) -> set[int]:
        return {weight.untyped_storage().data_ptr() for weight in self._model.parameters()}

"""What is merged, each as the change that it makes to a tensor of the base: adapters, and whole models."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from pipeline.errors import RegrowError
from stages.merge.adapter_config import FILE, read_config
from stages.merge.changes import ADAPTER, Adapter, match_tensors
from stages.merge.checkpoint import Checkpoint
from stages.merge.folder import read_model_config
from stages.merge.parameters import wrapped_parameters
from stages.merge.tied import Tie, must_untie

_ALONE = "Leave merge.method out: alone it can be merged."


class Source(Protocol):
    """An adapter or a model, and what it does to the base."""

    @property
    def what(self) -> str:
        """Its name in messages."""

    def touches(self) -> Iterable[str]:
        """Names of tensors that may differ from the base's."""

    def needs_head(self, tie: Tie, base: Checkpoint) -> bool:
        """Whether embedding and output head, one tensor in the base, are two here."""

    def check(self, shapes: Mapping[str, tuple[int, ...]], tie: Tie | None) -> None:
        """Refuse what does not fit tensors of these names and shapes."""

    def delta(self, name: str, home: str, weight: Tensor) -> Tensor | None:
        """What it adds to the base's tensor ``home``, given in float32, to make its own ``name``; None where nothing."""


@dataclass(frozen=True)
class AdapterSource:
    """A LoRA adapter. A plain low-rank update is computed alone, so that no rounding of the weight gets into it."""

    what: str
    adapter: Adapter

    def touches(self) -> Iterable[str]:
        return self.adapter.changes

    def needs_head(self, tie: Tie, base: Checkpoint) -> bool:
        with said_of(self.what):
            return must_untie(tie, base, self.adapter)

    def check(self, shapes: Mapping[str, tuple[int, ...]], tie: Tie | None) -> None:
        known = shapes.keys() | ({tie.head} if tie else set())
        if missing := sorted(self.adapter.changes.keys() - known):
            raise RegrowError(f"{self.what} changes {missing[0]}, which the base does not have.", "Name adapters of this base model.")
        for name, shape in shapes.items():
            if (other := self.adapter.shape(name, shape)) != shape:
                raise _other_shape(self.what, name, other, shape)

    def delta(self, name: str, home: str, weight: Tensor) -> Tensor | None:
        parts = self.adapter.changes.get(name)
        if parts is None:
            return None
        with said_of(self.what):
            if {"magnitude", "replacement", "rows"} & parts.keys():
                return self.adapter.apply(name, weight) - weight
            return self.adapter.apply(name, torch.zeros_like(weight))


@dataclass(frozen=True)
class ModelSource:
    """A whole model of the base's architecture."""

    what: str
    model: Checkpoint

    def touches(self) -> Iterable[str]:
        return self.model.shapes

    def needs_head(self, tie: Tie, base: Checkpoint) -> bool:
        return tie.head in self.model and not self.model.read(tie.head).equal(self.model.read(tie.embedding))

    def check(self, shapes: Mapping[str, tuple[int, ...]], tie: Tie | None) -> None:
        optional = {tie.head} if tie else set()
        if odd := sorted((shapes.keys() ^ self.model.shapes.keys()) - optional):
            whose = "the base does not have" if odd[0] in self.model else "this model does not have"
            raise RegrowError(f"{self.what}: {whose} {odd[0]} ({len(odd)} such tensors).", "Name models made from this base model.")
        for name, shape in shapes.items():
            if (other := self.model.shapes.get(name, shape)) != shape:
                raise _other_shape(self.what, name, other, shape)

    def delta(self, name: str, home: str, weight: Tensor) -> Tensor | None:
        own = self.model.read(name if name in self.model else home)
        difference = own.float() - weight
        return difference if difference.any() else None


def open_adapter(what: str, folder: Path, base: Path) -> AdapterSource:
    """The adapter in ``folder``.

    Raises:
        RegrowError: it cannot be merged, or not with others.
    """
    with said_of(what):
        config, tensors = read_config(folder), Checkpoint(folder, ADAPTER)
        if config.layer_replication:
            raise RegrowError(f"{FILE} repeats layers (layer_replication), which the others do not have.", _ALONE)
        wrapped, transposed = wrapped_parameters(base, config.target_parameters)
        return AdapterSource(what, Adapter(config, tensors, match_tensors(tensors.shapes, config, wrapped), transposed))


def open_model(what: str, folder: Path) -> ModelSource:
    """The model in ``folder``.

    Raises:
        RegrowError: it is quantised, or cannot be read.
    """
    with said_of(what):
        read_model_config(folder)
        return ModelSource(what, Checkpoint(folder))


@contextmanager
def said_of(what: str) -> Iterator[None]:
    """Several adapters have the same file names: a refusal says which of them it is about."""
    try:
        yield
    except RegrowError as error:
        raise RegrowError(f"{what}: {error.message}", error.remedy) from None


def _other_shape(what: str, name: str, found: tuple[int, ...], wanted: tuple[int, ...]) -> RegrowError:
    return RegrowError(
        f"{what} has {name} of {found}, but the base has {wanted}.",
        f"Tensors of different shapes cannot be merged with each other (a resized vocabulary makes them so). {_ALONE}",
    )

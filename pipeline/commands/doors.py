"""What the commands share: the stages, which they alone may open, and how a table is shown."""

from __future__ import annotations

import importlib
from enum import StrEnum
from typing import Any

from pipeline.errors import RegrowError

STAGES = ("fetch", "tokenize", "dedupe", "pack", "train", "merge", "quantize", "eval")


class TableAs(StrEnum):
    """How a command shows what it found."""

    text = "text"
    json = "json"


def open_stage(name: str) -> Any:
    """A :class:`pipeline.stage.Stage`, which --help must not import. The only door from pipeline to stages."""
    return importlib.import_module(f"stages.{name}").STAGE


def open_stages() -> list[Any]:
    """All of them, in their order."""
    return [open_stage(name) for name in STAGES]


def open_sharded_merge() -> Any:
    """What `regrow merge --sharded` does, which is the merge stage's work on another kind of input."""
    return importlib.import_module("stages.merge.sharded").merge_sharded


def open_machines() -> Any:
    """What `regrow join` does: a part of what train does, on another machine."""
    return importlib.import_module("stages.train.machines")


def require_stage(name: str) -> None:
    """Check that there is such a stage.

    Raises:
        RegrowError: there is none.
    """
    if name not in STAGES:
        raise RegrowError(f"{name!r} is not a stage.", f"Stages: {', '.join(STAGES)}.")

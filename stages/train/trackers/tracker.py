"""What a tracker is told, and what each needs to begin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

Numbers = Mapping[str, int | float]


@dataclass(frozen=True)
class Beginning:
    """What a tracker begins with.

    Attributes:
        config: the options that decide what is trained and the digests of what it is trained on; no secrets.
        folder: for files it keeps on this machine.
        first: the step that the run starts after; 0 unless it is resumed.
        known: the tracker's own name of the run that is resumed, ``None`` for a new one.
        every: steps between two reports.
    """

    config: Mapping[str, Any]
    folder: Path
    first: int
    known: str | None
    every: int


class Tracker(Protocol):
    """An open run of a tracking service."""

    name: str | None
    """By which the service knows the run, for a resumed run to go on with it."""

    def log(self, step: int, numbers: Numbers) -> None:
        """Report ``numbers`` after ``step`` optimizer steps."""

    def watch(self, model: Any) -> None:
        """See the model before its first step."""

    def keep(self, folder: Path, name: str, *, last: bool) -> None:
        """Upload a checkpoint, or with ``last`` the trained weights, where the options ask for it."""

    def end(self, *, finished: bool) -> None:
        """Close the run: ``finished``, or broken off."""


class Plain:
    """What most trackers do with models: nothing."""

    name: str | None = None

    def watch(self, model: Any) -> None:
        """Not asked for."""

    def keep(self, folder: Path, name: str, *, last: bool) -> None:
        """Not asked for."""

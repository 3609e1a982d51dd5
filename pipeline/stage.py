"""The contract of a stage: a function from typed options and input artifacts to output artifacts.

A stage knows nothing of DVC, params.yaml or the terminal. The runner gives it a :class:`Job` and publishes what it wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from pipeline.artifact import Artifact, Draft
from pipeline.options.schema import View
from pipeline.progress import Progress

OptionsT = TypeVar("OptionsT", bound=View)

Metrics = dict[str, Any]
"""What a stage found out: counts and scores, never times. Printed as its summary and kept in its run record."""


@dataclass(frozen=True)
class Job(Generic[OptionsT]):
    """All that a running stage is given.

    Attributes:
        options: the stage's own view of params.yaml; reading an option that the view does not declare is an error.
        inputs: the artifacts named in ``Stage.reads``, opened and verified.
        outputs: an empty draft for each name in ``Stage.writes``.
        scratch: a folder that survives a kill and is keyed by the stage's identity; emptied after success.
        sources: the folder where `configure` links the local files that params.yaml names (fetch alone reads it).
        identity: SHA-256 (hex) of all that decides the stage's output.
        code: SHA-256 (hex) of the stage's code and libraries alone.
        cache: a folder that stays from run to run; what a stage keeps there it must find by content, never by name or time.
        records: a folder for files about this machine and this run: speeds, profiles. Made by who writes first; no part of any artifact.
        observed: for what a stage notices of this machine and this run: devices, speeds. Kept in the run record alone.
    """

    options: OptionsT
    inputs: Mapping[str, Artifact]
    outputs: Mapping[str, Draft]
    scratch: Path
    sources: Path
    identity: str
    code: str
    cache: Path
    records: Path
    progress: Progress
    observed: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """What a stage is called, which options it sees, which artifacts it reads and writes (folders under data/)."""

    name: str
    options: type[View]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    run: Callable[[Job[Any]], Metrics]

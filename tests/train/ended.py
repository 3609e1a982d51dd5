"""Runs of two processes, started in one go: see :mod:`tests.train.together`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from tests.train.test_launched import seven_bins
from tests.train.workspace import FULL

RUN: dict[str, Any] = FULL | {"num_epochs": 2, "learning_rate": 1e-2, "micro_batch_size": 1, "eval_steps": 1}
"""Four steps, the last with an empty place, each measured; a checkpoint every second one."""


@dataclass(frozen=True)
class Ended:
    """What two processes left behind."""

    folder: Path

    @property
    def trained(self) -> Path:
        return self.folder / "trained-0"

    @property
    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.trained.iterdir()}

    @property
    def weights(self) -> dict[str, Tensor]:
        return load_file(next(self.trained.glob("*model.safetensors")))

    def table(self, name: str) -> list[list[float]]:
        lines = (self.trained / name).read_text(encoding="utf-8").splitlines()[1:]
        return [[float(number) for number in line.split(",")] for line in lines]


def end_all(root: Path, runs: Mapping[str, dict[str, Any]], stops: Mapping[str, tuple[str, int]]) -> dict[str, Ended]:
    """All runs of :data:`RUN` with these options, one after the other; ``NAME stopped`` got a signal in a step and was run again."""
    published = seven_bins(root / "published")
    jobs: list[tuple[str, dict[str, Any], tuple[str, int] | None]] = []
    for name, options in runs.items():
        jobs.append((name, options, None))
        jobs += [(f"{name} stopped", options, stops[name]), (f"{name} stopped", options, None)] if name in stops else []
    for name in {name for name, _, _ in jobs}:
        shutil.copytree(published / "data", root / name / "data")
    asked = [(str(root / name), RUN | options, stop) for name, options, stop in jobs]
    subprocess.run([sys.executable, "-m", "tests.train.together", json.dumps(asked)], check=True, cwd=Path(__file__).parents[2])
    return {name: Ended(root / name) for name, _, _ in jobs}

"""What the tests of train start from: sixteen short rows, two to a bin, a tiny model, and ways to run and to stop it."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifact import Artifact
from pipeline.progress import Progress, Task
from pipeline.stage import Metrics
from stages.train import STAGE
from tests.tiny import publish_artifact, publish_bins, publish_tokens, run_stage, save_model, save_tokenizer

Row = tuple[list[int], list[int]]

FULL: dict[str, Any] = {"num_epochs": 3, "micro_batch_size": 2, "gradient_accumulation_steps": 2, "save_steps": 2}
"""Eight bins, four to a step: two steps an epoch, six in all."""

LORA: dict[str, Any] = FULL | {"adapter": "lora", "lora_r": 4, "lora_dropout": 0.2, "lora_target_linear": True}


def make_rows(count: int, seed: int = 0) -> list[Row]:
    """Random rows of 4 to 14 tokens; a random part at the end of each is trained."""
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        length = rng.randint(4, 14)
        prompt = rng.randint(0, length - 2)
        rows.append(([rng.randrange(3, 259) for _ in range(length)], [0] * prompt + [1] * (length - prompt)))
    return rows


def build(
    workspace: Path, rows: Sequence[Row], bins: Sequence[Sequence[int]], held_out: Sequence[Sequence[int]] = (), **model: Any
) -> Path:
    """``workspace/data`` with everything that train reads. ``held_out``: bins of evaluation rows."""
    data = workspace / "data"
    publish_artifact(data, "base", lambda folder: save_model(folder, **model))
    publish_artifact(data, "tokenizer", save_tokenizer)
    publish_tokens(data, rows)
    publish_bins(data, bins, held_out)
    return workspace


def pairs(workspace: Path) -> Path:
    """The usual workspace."""
    return build(workspace, make_rows(16), [[2 * number, 2 * number + 1] for number in range(8)])


def evaluated(workspace: Path, held_out: Sequence[Sequence[int]] = ([16, 17, 18], [19], [20, 21])) -> Path:
    """The usual workspace with six held-out rows in bins of unequal length."""
    return build(workspace, make_rows(22), [[2 * number, 2 * number + 1] for number in range(8)], held_out)


def train(workspace: Path, options: dict[str, Any], **keywords: Any) -> tuple[Artifact, Metrics]:
    """Run the stage; what it published as data/trained, and its metrics."""
    outputs, metrics = run_stage(STAGE, workspace, options, **keywords)
    return outputs["trained"], metrics


@dataclass(frozen=True)
class Finished:
    """What an undisturbed run ended with."""

    files: Mapping[str, Mapping[str, Any]]
    log: list[dict[str, float]]


_FINISHED: dict[str, Finished] = {}


def finished(published: Path, options: dict[str, Any]) -> Finished:
    """An undisturbed run from the published workspace, made once for each set of options."""
    key = f"{published} {json.dumps(options, sort_keys=True)}"
    if key not in _FINISHED:
        with tempfile.TemporaryDirectory() as folder:
            shutil.copytree(published / "data", Path(folder) / "data")
            trained, _ = train(Path(folder), options)
            _FINISHED[key] = Finished(trained.files, read_log(trained))
    return _FINISHED[key]


def read_log(trained: Artifact, name: str = "log.csv") -> list[dict[str, float]]:
    """log.csv or eval.csv as numbers."""
    header, *lines = (trained.path / name).read_text(encoding="utf-8").splitlines()
    return [dict(zip(header.split(","), map(float, line.split(",")), strict=True)) for line in lines]


class Heard(Progress):
    """Remembers what was said and every count, note and token of the tasks; can act at a count."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.tasks: list[Task] = []

    def say(self, message: str) -> None:
        self.said.append(message)

    def at(self, task: Task) -> None:
        """Called whenever the task has advanced."""

    @contextmanager
    def task(self, name: str, *, total: int | None = None, unit: str = "rows") -> Iterator[Task]:
        outer = self

        class Watched(Task):
            def advance(self, count: int = 1, *, tokens: int = 0, note: str | None = None) -> None:
                super().advance(count, tokens=tokens, note=note)
                outer.at(self)

        self.tasks.append(Watched(name, total, unit))
        yield self.tasks[-1]


class SignalAt(Heard):
    """Sends this process a signal in the middle of a step, once."""

    def __init__(self, step: int, number: signal.Signals) -> None:
        super().__init__()
        self._step, self._number, self._sent = step, number, False

    def at(self, task: Task) -> None:
        if task.done == self._step - 1 and not self._sent:
            self._sent = True
            os.kill(os.getpid(), self._number)

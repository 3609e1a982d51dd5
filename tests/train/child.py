"""A training run in a process of its own: ``python -m tests.train.child WORKSPACE OPTIONS``.

Alone it goes through the runner, slowly enough to be killed between steps. As one of several processes each has its own
draft and they share the scratch folder; what each returned is written beside its draft.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from pipeline.artifact import Draft, open_artifact
from pipeline.options.views import RecipeOptions
from pipeline.progress import Task
from pipeline.stage import Job
from stages.train import STAGE
from stages.train.launch import find_launch
from tests.tiny import MINIMAL
from tests.train.workspace import Heard, train


class Slow(Heard):
    """A tenth of a second for each step."""

    def at(self, task: Task) -> None:
        time.sleep(0.1)


def train_together(workspace: Path, options: dict[str, Any]) -> None:
    """This process's part of a distributed run."""
    data, rank = workspace / "data", find_launch().rank
    draft = Draft("trained", workspace / f"trained-{rank}")
    draft.path.mkdir()
    inputs = {name: open_artifact(data / name) for name in STAGE.reads}
    view = STAGE.options.model_validate(RecipeOptions.model_validate(MINIMAL | options).model_dump())
    drafts, scratch, cache, records = {"trained": draft}, workspace / "scratch", workspace / "cache", data / "metrics" / "train"
    job: Job[Any] = Job(view, inputs, drafts, scratch, workspace, "test", "test", cache, records, Heard())
    (workspace / f"metrics-{rank}.json").write_text(json.dumps(STAGE.run(job)), encoding="utf-8")


def main(workspace: str, options: str) -> None:
    """Decode the arguments and run."""
    if find_launch().world_size > 1:
        train_together(Path(workspace), json.loads(options))
    else:
        train(Path(workspace), json.loads(options), progress=Slow())


if __name__ == "__main__":
    main(*sys.argv[1:])

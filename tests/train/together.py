"""Runs of two processes that need no start of Python each: ``python -m tests.train.together JOBS``.

JOBS is a JSON list of [workspace, options, null or [signal, step]]. The two processes are forks of this one, which has imported
everything and computed nothing; they are launched as torchrun would, and the leading one gets the signal in the middle of the
step. What it made is in ``WORKSPACE/trained-0``, what it returned in ``metrics-0.json``; what one raised in ``error-RANK.txt``.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import stages.train.session  # noqa: F401
from pipeline.artifact import Draft, open_artifact
from pipeline.errors import RegrowError
from pipeline.options.views import RecipeOptions
from pipeline.progress import Progress
from pipeline.stage import Job
from stages.train import STAGE
from tests.tiny import MINIMAL
from tests.train.workspace import SignalAt

PROCESSES = 2


def train_together(workspace: Path, options: dict[str, Any], stop: tuple[str, int] | None) -> None:
    """Fork the processes and wait for them."""
    port = _free_port()
    members = [os.fork() or _member(workspace, options, stop, rank, port) for rank in range(PROCESSES)]
    for member in members:
        os.waitpid(member, 0)


def _member(workspace: Path, options: dict[str, Any], stop: tuple[str, int] | None, rank: int, port: int) -> int:
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": PROCESSES, "LOCAL_WORLD_SIZE": PROCESSES, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()} | {"MASTER_ADDR": "127.0.0.1"})
    (workspace / f"error-{rank}.txt").unlink(missing_ok=True)
    try:
        _train(workspace, options, rank, Progress() if stop is None else SignalAt(stop[1], signal.Signals[stop[0]]))
    except RegrowError as error:
        (workspace / f"error-{rank}.txt").write_text(str(error), encoding="utf-8")
    finally:
        sys.stderr.flush()
    os._exit(0)


def _train(workspace: Path, options: dict[str, Any], rank: int, progress: Progress) -> None:
    data, draft = workspace / "data", Draft("trained", workspace / f"trained-{rank}")
    draft.path.mkdir(exist_ok=True)
    inputs = {name: open_artifact(data / name) for name in STAGE.reads}
    view = STAGE.options.model_validate(RecipeOptions.model_validate(MINIMAL | options).model_dump())
    scratch, cache, records = workspace / "scratch", workspace / "cache", data / "metrics" / "train"
    job: Job[Any] = Job(view, inputs, {"trained": draft}, scratch, workspace, "test", "test", cache, records, progress)
    (workspace / f"metrics-{rank}.json").write_text(json.dumps(STAGE.run(job)), encoding="utf-8")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


if __name__ == "__main__":
    gc.freeze()
    for folder, asked, stop in json.loads(sys.argv[1]):
        train_together(Path(folder), asked, stop)

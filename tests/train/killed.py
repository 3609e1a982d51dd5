"""Runs that are killed: ``python -m tests.train.killed JOBS``, a JSON list of [workspace, options, steps].

Each job is started once for every step and gets SIGKILL in the middle of it; the next start goes on from what is left. Every
start is a fork of this process, which has imported everything and computed nothing: a start costs no imports.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import stages.train.session  # noqa: F401
from tests.train.workspace import SignalAt, train


def kill_at(workspace: Path, options: dict[str, Any], steps: Iterable[int]) -> None:
    """Start, kill at the first step, start again, kill at the second, and so on."""
    for step in steps:
        process = os.fork()
        if process == 0:
            train(workspace, options, progress=SignalAt(step, signal.SIGKILL))
            os._exit(0)
        _, status = os.waitpid(process, 0)
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, f"not killed at step {step}: {status}"


if __name__ == "__main__":
    gc.freeze()
    for workspace, options, steps in json.loads(sys.argv[1]):
        kill_at(Path(workspace), options, steps)

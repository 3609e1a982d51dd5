"""A project of recipes/small: a git and DVC repository in a folder of its own, as `make reproduce` makes it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from pipeline.commands.doors import STAGES
from pipeline.new import create
from pipeline.new.recipes import find_recipe

IDENTITY = dict.fromkeys(("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"), "a@b")


def small_project(folder: Path) -> Path:
    """Committed, and nothing has run."""
    create(folder, find_recipe("small"), STAGES)
    commit(folder)
    return folder


def commit(folder: Path) -> None:
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--allow-empty", "--message", "as it is")


def run(folder: Path, *command: str, code: int = 0) -> str:
    """Run a command as in an activated environment; what it printed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | IDENTITY | {"PATH": path, "OMP_NUM_THREADS": "1", "DVC_NO_ANALYTICS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == code, done.stdout
    assert "Traceback" not in done.stdout, done.stdout
    return done.stdout

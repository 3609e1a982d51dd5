"""One stage by DVC, with what it needs, so that dvc.lock stays true."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

from pipeline.dvc_lock import mend_lock
from pipeline.errors import RegrowError
from pipeline.local_files import local_files
from pipeline.options.recipe import load_recipe
from pipeline.process import die_with_parent
from pipeline.project import Project, find_project


def reproduce(stage: str, *, force: bool, single: bool) -> None:
    """Run ``dvc repro`` up to ``stage``; with ``single``, configure and that stage only; ``force`` runs it regardless.

    Raises:
        RegrowError: params.yaml has problems or names files that do not exist (told before DVC starts).
        SystemExit: with the exit code of the stage that failed.
    """
    project = find_project()
    local_files(project, load_recipe(project.params))
    if not any((place / ".dvc").is_dir() for place in (project.root, *project.root.parents)):
        raise RegrowError(f"{project.root} is not a DVC repository.", "Run: git init && dvc init")
    if not _has_git(project.root) and not _without_git(project.root):
        raise RegrowError(
            f"{project.root} is in no git repository, and DVC expects one.", "Run `git init`, or `dvc config core.no_scm true`."
        )
    if mended := mend_lock(project):
        print(mended, file=sys.stderr)
    if single or force:
        _dvc(project, "repro", "--single-item", "configure")
        _dvc(project, "repro", "--single-item", *(["--force"] if force else []), stage)
    else:
        _dvc(project, "repro", stage)


def _has_git(root: Path) -> bool:
    return any((folder / ".git").exists() for folder in (root, *root.parents))


def _without_git(root: Path) -> bool:
    """Whether DVC was told to do without: `dvc init --no-scm` writes the same."""
    config = ConfigParser()
    config.read([folder / ".dvc" / name for folder in (root, *root.parents) for name in ("config", "config.local")], encoding="utf-8")
    return config.getboolean("core", "no_scm", fallback=False)


def _dvc(project: Project, *arguments: str) -> None:
    told = project.scratch / "exit_code"
    told.unlink(missing_ok=True)
    # dvc.yaml says `python`: it must be this one, also when the environment is not activated.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = os.environ | {"PATH": path, "DVC_NO_ANALYTICS": "1"}
    command = [sys.executable, "-m", "dvc", *arguments]
    code = _wait(subprocess.Popen(command, cwd=project.root, env=environment, process_group=0, preexec_fn=die_with_parent))
    if code:
        left = told.read_text(encoding="utf-8") if told.exists() else ""  # empty after a full disk
        raise SystemExit(int(left) if left.isdecimal() else 1 if code > 0 else 128 - code)


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Wait for DVC. A request to stop goes to the stage: DVC lets SIGINT pass to it, and would not pass on SIGTERM."""

    def stop(_signal: int, _frame: object) -> None:
        os.killpg(process.pid, signal.SIGINT)

    handlers = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return process.wait()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)

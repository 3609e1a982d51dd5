"""git and DVC around a new project: what is there is used, what is missing is made."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from pipeline.errors import RegrowError

# Hard links and symbolic links into the cache are not among the types: a write through one would corrupt it for good.
_CONFIG = """[core]
    analytics = false
    check_update = false
    autostage = false
{more}[cache]
    type = "reflink,copy"
"""


def prepare(folder: Path) -> list[str]:
    """Put ``folder`` into a git and a DVC repository. What was done, a line each.

    Inside repositories nothing is made and nothing of theirs is changed: projects of one DVC repository share its cache. A folder
    somewhere in a git repository without DVC gets a DVC repository of its own, because the rest is not ours to change.

    Raises:
        RegrowError: git or DVC refuses.
    """
    done: list[str] = []
    if shutil.which("git") is None:
        top = None
        done.append("git is not installed: DVC works without, experiments and `regrow log` of commits do not")
    else:
        top = git_root(folder)
        if top is None:
            _call(["git", "init", "--quiet"], folder)
            top = folder
            done.append(f"git repository: {folder}")
    shared = dvc_root(folder, top)
    if shared is not None:
        return [*done, f"DVC repository: {shared} (was there; its cache is shared)"]
    kind = ["--no-scm"] if top is None else [] if top == folder else ["--subdir"]
    _call([sys.executable, "-m", "dvc", "init", "--quiet", *kind], folder)
    more = "    no_scm = true\n" if top is None else ""
    (folder / ".dvc" / "config").write_text(_CONFIG.format(more=more), encoding="utf-8")
    return [*done, f"DVC repository: {folder}"]


def git_root(folder: Path) -> Path | None:
    """The git repository that ``folder`` is part of; ``None`` where there is none, or one that ignores the folder."""
    top = _ask(["git", "rev-parse", "--show-toplevel"], folder)
    if top is None or _ask(["git", "check-ignore", "--quiet", str(folder)], folder) is not None:
        return None
    return Path(top).resolve()


def dvc_root(folder: Path, top: Path | None) -> Path | None:
    """The DVC repository around ``folder``, no further up than the git repository ``top``."""
    places = [folder, *folder.parents]
    inside = [place for place in places if top is None or place.is_relative_to(top)]
    return next((place for place in inside if (place / ".dvc").is_dir()), None)


def _ask(command: list[str], folder: Path) -> str | None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def _call(command: list[str], folder: Path) -> None:
    environment = os.environ | {"DVC_NO_ANALYTICS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RegrowError(f"{folder}: `{' '.join(command)}` failed: {done.stderr.strip() or done.stdout.strip()}")

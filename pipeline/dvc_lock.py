"""dvc.lock when a kill struck while DVC was writing it: DVC writes it in place, and refuses every command on an empty one."""

from __future__ import annotations

import shutil
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.project import Project


def keep_lock(project: Project) -> None:
    """Copy dvc.lock aside, by rename. Called inside DVC, which has just read it and writes it only after the stage."""
    lock, kept = project.root / "dvc.lock", _kept(project)
    if is_whole(lock):
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = kept.with_suffix(".partial")
        shutil.copyfile(lock, partial)
        partial.rename(kept)


def mend_lock(project: Project) -> str | None:
    """Put the copy in the place of a dvc.lock that was cut short, or remove it if there is none. What was done, if anything.

    Stages that the copy does not know come back from DVC's run cache without a run.
    """
    lock, kept = project.root / "dvc.lock", _kept(project)
    if not lock.exists() or is_whole(lock):
        return None
    if is_whole(kept):
        shutil.copyfile(kept, lock)
        return f"{lock} was cut short, as by a kill while DVC wrote it; it is again as before the last stage."
    lock.unlink()
    return f"{lock} was cut short, as by a kill while DVC wrote it; it is made anew, from DVC's run cache where that has the stages."


def is_whole(lock: Path) -> bool:
    """Whether this is a lock file that DVC can read."""
    try:
        content = YAML(typ="safe", pure=True).load(lock.read_bytes())
    except (OSError, ValueError, YAMLError):
        return False
    return isinstance(content, dict) and "schema" in content


def _kept(project: Project) -> Path:
    return project.scratch / "dvc.lock"

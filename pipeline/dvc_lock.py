"""dvc.lock when a kill struck while DVC was writing it: DVC writes it in place, and refuses every command on an empty one."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.project import Project


def keep_lock(project: Project) -> None:
    """Copy dvc.lock aside, by rename. Called inside DVC, which has just read it and writes it only after the stage."""
    lock, kept = project.root / "dvc.lock", _kept(project)
    if is_whole(lock):
        with suppress(OSError):  # on a full disk the stage itself says so; the former copy stays
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
        written = lock.read_bytes()
        content = YAML(typ="safe", pure=True).load(written)
    except (OSError, ValueError, YAMLError):
        return False
    stages = content.get("stages") if isinstance(content, dict) else None
    return isinstance(stages, dict) and written.endswith(b"\n") and all(map(_is_stage, stages.values()))


def _is_stage(entry: Any) -> bool:
    files = [entry.get(kind, []) for kind in ("deps", "outs")] if isinstance(entry, dict) and "cmd" in entry else [None]
    return all(
        isinstance(listed, list) and all(isinstance(file, dict) and "path" in file and "md5" in file for file in listed) for listed in files
    )


def _kept(project: Project) -> Path:
    return project.scratch / "dvc.lock"

"""Checkpoints that count only when they are complete.

transformers writes a checkpoint in place, so a killed run can leave half of one under a good name. A marker that lists its
files with their sizes and digests is put there as the last act; a checkpoint without it, or that differs from it, is removed:
a disk that gave back other bytes would make another model of the run.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pipeline.digest import canonical_json, digest_file

MARKER = "complete.json"
ORIGIN = "origin.json"
_PREFIX = "checkpoint-"
_THREADS = 4


def checkpoint_path(root: Path, step: int) -> Path:
    """Where transformers puts the checkpoint of a step."""
    return root / f"{_PREFIX}{step}"


def write_origin(checkpoint: Path, origin: Mapping[str, Any]) -> None:
    """Put into a checkpoint what it was made from; see :mod:`stages.train.checkpoints.origin`."""
    (checkpoint / ORIGIN).write_text(canonical_json(dict(origin)), encoding="utf-8")


def read_origin(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint was made from; empty for one that regrow did not write."""
    try:
        origin: dict[str, Any] = json.loads((checkpoint / ORIGIN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return origin


def mark_complete(checkpoint: Path) -> None:
    """Write the marker by rename, after everything it lists has reached the disk."""
    with ThreadPoolExecutor(_THREADS) as pool:
        listed = _states(checkpoint, pool)
        list(pool.map(_sync, sorted(checkpoint.rglob("*"))))
    partial = checkpoint / f"{MARKER}.partial"
    partial.write_text(canonical_json(listed), encoding="utf-8")
    _sync(partial)
    partial.rename(checkpoint / MARKER)
    _sync(checkpoint)


def newest_resumable(root: Path) -> Path | None:
    """The complete checkpoint of the latest step that has an optimizer state, if there is one."""
    return next((path for path in reversed(_by_step(root)) if is_complete(path) and read_origin(path).get("resumable")), None)


def remove_incomplete(root: Path) -> None:
    """Delete what a kill in the middle of a save left behind."""
    for path in _by_step(root):
        if not is_complete(path):
            shutil.rmtree(path)


def keep_newest(root: Path, count: int, best: int | None = None) -> None:
    """Delete all but the latest ``count`` checkpoints and that of step ``best``. Call it when the newest is complete."""
    for path in _by_step(root)[:-count]:
        if step_of(path) != best:
            shutil.rmtree(path)


def remove_after(root: Path, step: int) -> None:
    """Delete checkpoints of later steps: a run that starts again from ``step`` writes them anew."""
    for path in _by_step(root):
        if step_of(path) > step:
            shutil.rmtree(path)


def step_of(checkpoint: Path) -> int:
    """The optimizer step after which a checkpoint was taken."""
    return int(checkpoint.name.removeprefix(_PREFIX))


def _by_step(root: Path) -> list[Path]:
    numbered = (path for path in root.glob(f"{_PREFIX}*") if path.name.removeprefix(_PREFIX).isdecimal())
    return sorted((path for path in numbered if path.is_dir()), key=step_of)


def is_complete(checkpoint: Path) -> bool:
    """Whether a checkpoint has its marker and is as the marker says. One that the leading process removes meanwhile is not."""
    try:
        listed = json.loads((checkpoint / MARKER).read_text(encoding="utf-8"))
        if not isinstance(listed, dict) or listed.keys() != _files(checkpoint).keys():
            return False
        with ThreadPoolExecutor(_THREADS) as pool:
            return bool(listed == _states(checkpoint, pool))
    except (FileNotFoundError, ValueError):
        return False


def _states(checkpoint: Path, pool: Executor) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 (hex) by name: 1.2 GB/s of a processor, and hashing lets other threads run."""
    files = _files(checkpoint)
    return {
        name: {"size": path.stat().st_size, "sha256": sha256}
        for (name, path), sha256 in zip(files.items(), pool.map(digest_file, files.values()), strict=True)
    }


def _files(checkpoint: Path) -> dict[str, Path]:
    files = (path for path in checkpoint.rglob("*") if path.is_file() and not path.name.startswith(MARKER))
    return {path.relative_to(checkpoint).as_posix(): path for path in files}


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

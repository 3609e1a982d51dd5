"""Damaged files in DVC's cache: DVC takes what lies there read-only for whole, and would bring the damage back for ever."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.artifact import DamagedArtifact
from pipeline.errors import RegrowError
from pipeline.project import Project


@contextmanager
def damage_removed_from_cache(project: Project) -> Iterator[None]:
    """When an artifact turns out to be damaged, remove from DVC's cache what has the same damage, so that the remedy helps.

    Raises:
        RegrowError: the damage; says so if the cache had it too.
    """
    try:
        yield
    except DamagedArtifact as error:
        removed = remove_damaged(project, error.path)
        if not removed:
            raise
        names = ", ".join(str(path) for path in removed[:3]) + (", …" if len(removed) > 3 else "")
        raise RegrowError(f"{error.message} DVC's cache held the same damage ({names}); it is removed from there.", error.remedy) from error


def remove_damaged(project: Project, artifact: Path) -> list[Path]:
    """Remove the files of an artifact that DVC's cache holds with other bytes than their names, their md5, say."""
    from dvc.repo import Repo
    from ruamel.yaml import YAML

    try:
        stages = YAML(typ="safe", pure=True).load(project.root / "dvc.lock")["stages"]
    except (OSError, KeyError, TypeError):
        return []
    outs = [out for stage in stages.values() for out in stage.get("outs", ()) if project.root / out["path"] == artifact]
    with Repo(str(project.root)) as repo:
        cache = Path(repo.cache.local.path)
    objects = [path for out in outs for path in _objects(cache, out["md5"]) if not _is_whole(path)]
    for path in objects:
        path.unlink(missing_ok=True)
    return objects


def _objects(cache: Path, md5: str) -> Iterator[Path]:
    """A folder's listing and the files that it lists, as far as they are in the cache."""
    listing = cache / md5[:2] / md5[2:]
    if not listing.exists():
        return
    if _is_whole(listing):
        for entry in json.loads(listing.read_bytes()):
            path = cache / entry["md5"][:2] / entry["md5"][2:]
            if path.exists():
                yield path
    yield listing


def _is_whole(path: Path) -> bool:
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    return found == f"{path.parent.name}{path.name.removesuffix('.dir')}"

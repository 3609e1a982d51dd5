"""Reads artifacts of other commits out of DVC's cache, without checking them out."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.artifact import MANIFEST, Artifact
from pipeline.project import Project


class Stored:
    """Files of artifacts by the MD5 that dvc.lock has for the folder. ``None`` where the cache does not have them."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._folder = _cache_folder(project)
        self.digest = cache(self._digest)

    def json(self, folder: str, file: str) -> Any:
        """A JSON file of an artifact."""
        listed = self._load(folder)
        found = next((entry["md5"] for entry in listed or [] if entry["relpath"] == file), None)
        return None if found is None else self._load(found)

    def _digest(self, folder: str) -> str | None:
        """The artifact's own digest, from its manifest."""
        manifest = self.json(folder, MANIFEST)
        try:
            return Artifact("", Path(), manifest["content"], manifest["files"], {}).digest
        except (KeyError, TypeError):
            return None

    def _load(self, digest: str) -> Any:
        if self._folder is None:
            return None
        try:
            return json.loads((self._folder / digest[:2] / digest[2:]).read_bytes())
        except (OSError, ValueError):
            return None


def _cache_folder(project: Project) -> Path | None:
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(project.root)) as repo:
            return Path(repo.cache.local.path)
    except DvcException:
        return None

"""Where things are in a regrow project: the folder that holds params.yaml and dvc.yaml."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import RegrowError


@dataclass(frozen=True)
class Project:
    """Paths of a project. ``scratch`` is what survives a kill and is no artifact: checkpoints, caches, exit codes."""

    root: Path

    @property
    def params(self) -> Path:
        return self.root / "params.yaml"

    @property
    def lock(self) -> Path:
        return self.root / "requirements.lock"

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def options(self) -> Path:
        return self.data / "options"

    @property
    def sources(self) -> Path:
        return self.data / "sources"

    @property
    def scratch(self) -> Path:
        return self.root / ".regrow"

    def stage_options(self, stage: str) -> Mapping[str, Any]:
        """What `configure` wrote for a stage."""
        path = self.options / f"{stage}.json"
        try:
            document: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RegrowError(f"{path} does not exist.", "Run `dvc repro configure` first.") from None
        except ValueError:
            raise RegrowError(f"{path} is not what `configure` writes.", "Remove it and run `dvc repro configure`.") from None
        return document


def find_project(start: Path | None = None) -> Project:
    """The project around the current folder.

    Raises:
        RegrowError: no folder from here upwards holds both dvc.yaml and params.yaml.
    """
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / "dvc.yaml").is_file() and (folder / "params.yaml").is_file():
            return Project(folder)
    raise RegrowError(f"{here} is not inside a regrow project.", "Go to the folder that holds params.yaml and dvc.yaml.")

"""Where things are in a regrow project: the folder that holds params.yaml and dvc.yaml."""

from __future__ import annotations

import json
import os
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

    @property
    def home(self) -> Project:
        """The project itself, or the one that an experiment was started in: DVC runs it in a copy under .dvc/tmp/exps, without
        what git ignores, and throws the copy away."""
        parts = self.root.parts
        end = next((end for end in range(len(parts) - 3, 0, -1) if parts[end : end + 3] == _EXPERIMENTS), None)
        if end is None:
            return self
        return Project(_git_root(Path(*parts[:end])) / self.root.relative_to(_git_root(self.root)))

    def named(self, path: str) -> Path:
        """Where a path in params.yaml leads: from the project's folder, and in an experiment's copy to what git did not copy."""
        expanded = Path(path).expanduser()
        here, there = self.root / expanded, self.home.root / expanded
        if here == there:
            return here
        is_copied = here.exists() and Path(os.path.normpath(here)).is_relative_to(_git_root(self.root))
        return here if is_copied or not there.exists() else there

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


_EXPERIMENTS = (".dvc", "tmp", "exps")


def _git_root(folder: Path) -> Path:
    """The repository's folder: DVC may have been initialised further down."""
    return next((place for place in (folder, *folder.parents) if (place / ".git").exists()), folder)


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

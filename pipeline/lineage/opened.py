"""The artifacts a trace goes through, opened together, and whether each was made from the others as they are now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.artifact import MANIFEST, Artifact, open_artifact
from pipeline.bins import Bins
from pipeline.errors import RegrowError
from pipeline.inspection.opened import Opened, open_tokens
from pipeline.kept import KeptRows
from pipeline.lineage.steps import TrainedOrder

SPLITS = ("train", "eval")


@dataclass(frozen=True)
class Lineage:
    """A project's ``data`` folder. Files are not hashed: this is for looking, and they may be large."""

    data: Path
    tokens: Opened

    def artifact(self, name: str) -> Artifact | None:
        """``data/<name>`` if it is there and was made from what the others are now."""
        return None if self.problem(name) else self._found(name)

    def problem(self, name: str) -> str | None:
        """Why nothing can be said about what ``data/<name>`` holds; nothing where all is well."""
        artifact = self._found(name)
        if artifact is None:
            return f"data/{name} is not there"
        for other, digest in artifact.inputs.items():
            found = self._found(other)
            if found is not None and found.digest != digest and other not in ("base", "tokenizer"):
                return f"data/{name} was made from another data/{other} than the one there now"
        return None

    def require(self, name: str) -> Artifact:
        """``data/<name>``.

        Raises:
            RegrowError: it is not there, or was made from something else.
        """
        problem = self.problem(name)
        artifact = self._found(name)
        if problem is not None or artifact is None:
            stage = {"packed": "pack", "trained": "train", "tokens": "tokenize"}.get(name, name)
            raise RegrowError(f"{self.data}: {problem}.", f"Run `regrow {stage}`.")
        return artifact

    def _found(self, name: str) -> Artifact | None:
        if name == "tokens":
            return self.tokens.artifact
        path = self.data / name
        return open_artifact(path, verify=False) if (path / MANIFEST).is_file() else None

    @cached_property
    def bins(self) -> Mapping[str, Bins]:
        """The plan of each split; data/packed must be there."""
        folder = self.require("packed").path
        return {split: Bins.load(folder / f"{split}.arrow") for split in SPLITS}

    @cached_property
    def kept(self) -> KeptRows:
        """The index of data/dedupe, which must be there."""
        return KeptRows.load(self.require("dedupe").path / "index.arrow")

    @cached_property
    def order(self) -> TrainedOrder:
        """Which step took which bin; data/trained must be there.

        Raises:
            RegrowError: it does not say in which order it was trained.
        """
        trained = self.require("trained")
        if "order" not in trained.content:
            raise RegrowError(f"{trained.path} does not say in which order its rows were trained.", "Run `regrow train`.")
        return TrainedOrder.of(trained.content, self.bins["train"])

    def name_row(self, number: int) -> dict[str, Any]:
        """A row of the token table by where it comes from: source, file, row there, and its number in the table."""
        table = self.tokens.table
        facts = self.tokens.sources[int(table.source[number])]
        return {"source": facts["name"], "file": facts["file"], "row": int(table.row[number]), "number": int(number)}

    def numbers_of(self, source: int, row: int) -> np.ndarray:
        """Rows of the token table, int64, that were made from a row of a source."""
        table = self.tokens.table
        return np.flatnonzero((table.source == source) & (table.row == row))


def open_lineage(data: Path) -> Lineage:
    """Open a project's data folder; data/tokens must be there, the rest may be.

    Raises:
        RegrowError: nothing was tokenized yet.
    """
    return Lineage(data, open_tokens(data / "tokens"))

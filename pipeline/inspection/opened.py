"""A token artifact opened for reading, and the rows of it that were asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from pipeline.artifact import MANIFEST, Artifact, open_artifact
from pipeline.errors import RegrowError
from pipeline.tokens import TokenTable


@dataclass(frozen=True)
class Opened:
    """A token artifact: its manifest and its rows."""

    artifact: Artifact
    table: TokenTable

    @property
    def sources(self) -> Sequence[Mapping[str, Any]]:
        """What the manifest says of each source, in the order that the table's ``source`` column counts."""
        found: Sequence[Mapping[str, Any]] = self.artifact.content["sources"]
        return found


def open_tokens(path: Path) -> Opened:
    """Open data/tokens or a copy of it. Its digests are not computed: this is for looking, and files may be large.

    Raises:
        RegrowError: there is no such folder, or it is another artifact.
    """
    if not (path / MANIFEST).is_file():
        problem = "is no artifact: it has no manifest.json" if path.exists() else "does not exist"
        raise RegrowError(f"{path} {problem}.", "Run `regrow tokenize`, or name the folder of a token artifact.")
    artifact = open_artifact(path, verify=False)
    if artifact.name != "tokens":
        raise RegrowError(f"{path} is the artifact {artifact.name!r}, which holds no tokens.", "Name data/tokens, or leave it out.")
    return Opened(artifact, TokenTable(path))


def tokenizer_of(opened: Opened) -> Path:
    """The tokenizer.json that the rows were made with; it lies beside the artifact.

    Raises:
        RegrowError: it is not there, or it is another one, which would show wrong text.
    """
    folder = opened.artifact.path.resolve().parent / "tokenizer"
    path, made_with = folder / "tokenizer.json", opened.artifact.inputs.get("tokenizer")
    if not path.is_file():
        raise RegrowError(f"{path} does not exist, and ids alone are no text.", "Run `regrow fetch`, or look at the ids: --format jsonl.")
    if made_with is not None and open_artifact(folder, verify=False).digest != made_with:
        raise RegrowError(
            f"{folder} is another tokenizer than {opened.artifact.path} was made with.",
            "Run `regrow tokenize`, or look at the ids: --format jsonl.",
        )
    return path


def choose_rows(opened: Opened, row: int | None, source: str | None, count: int) -> list[int]:
    """Row numbers of the artifact: ``count`` of them from ``row`` on, of ``source`` alone if it is named.

    Raises:
        RegrowError: there is no such row or source, or the row is another source's.
    """
    chosen = _of_source(opened, source)
    if row is None:
        return [int(number) for number in chosen[:count]]
    if not 0 <= row < len(opened.table):
        raise RegrowError(f"There is no row {row} in {opened.artifact.path}.", _rows_that_are(np.arange(len(opened.table))))
    at = int(np.searchsorted(chosen, row))
    if at == len(chosen) or chosen[at] != row:
        name = opened.sources[int(opened.table.source[row])]["name"]
        raise RegrowError(f"Row {row} belongs to {name}, not to {source}.", _rows_that_are(chosen))
    return [int(number) for number in chosen[at : at + count]]


def _of_source(opened: Opened, source: str | None) -> np.ndarray:
    """int64 ``[rows]``, in the artifact's order. A source is known by slot, path, file, or the path's last part."""
    if source is None:
        return np.arange(len(opened.table))
    numbers = [number for number, facts in enumerate(opened.sources) if source in names_of(facts)]
    if not numbers:
        known = "; ".join(dict.fromkeys(label(facts) for facts in opened.sources))
        raise RegrowError(f"{opened.artifact.path} has no source {source!r}.", f"Sources: {known}.")
    return np.flatnonzero(np.isin(opened.table.source, numbers))


def names_of(facts: Mapping[str, Any]) -> set[str]:
    """What a source may be called: its slot, its path, its file, or the last part of either."""
    paths = (str(facts["path"]), str(facts["file"]))
    return {str(facts["name"]), *paths, *(PurePosixPath(path).name for path in paths)}


def _rows_that_are(rows: np.ndarray) -> str:
    if not len(rows):
        return "It has no rows; data/tokens/rejected.jsonl says what became of them."
    whole = len(rows) == rows[-1] - rows[0] + 1
    return f"Its rows are {rows[0]} to {rows[-1]}{'' if whole else ', not all of them'}."


def label(facts: Mapping[str, Any]) -> str:
    """How a source is called in few words: its slot and its file."""
    return f"{facts['name']} {facts['file']}"

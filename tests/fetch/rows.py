"""Rows of one dataset entry, fetched without a model."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.artifact import Draft
from pipeline.configure import link_all
from pipeline.local_files import local_files
from pipeline.options.recipe import load_recipe
from pipeline.options.views import FetchOptions
from pipeline.project import Project
from stages.fetch.locate import Locator
from stages.fetch.rows import write_rows
from tests.fetch.made import Heard, link

_numbers = itertools.count()


@dataclass
class Fetched:
    """What data/raw holds, and the lines that were said."""

    folder: Path
    sources: list[dict[str, Any]]
    said: list[str] = field(default_factory=list)

    @property
    def raw(self) -> list[bytes]:
        return [(self.folder / source["rows_file"]).read_bytes() for source in self.sources]

    @property
    def rows(self) -> list[Any]:
        return [json.loads(line) for text in self.raw for line in text.split(b"\n") if line.strip()]

    @property
    def numbers(self) -> list[list[int] | None]:
        return [
            None if source["numbers"] is None else np.fromfile(self.folder / source["numbers"], "<i8").tolist() for source in self.sources
        ]

    @property
    def files(self) -> list[str]:
        return [source["file"] for source in self.sources]


def fetch_rows(workspace: Path, source: Path | str, *, role: str = "train", more: Mapping[str, Any] = {}, **entry: Any) -> Fetched:
    """Fetch one dataset entry: a path of this disk, which is linked as `configure` does, or a source elsewhere.

    ``more`` are options of the whole file.
    """
    place = workspace / f"fetch-{next(_numbers)}"
    path = source if isinstance(source, str) else f"./{source.name}"
    if isinstance(source, Path):
        link(place, f"{role}-00", source)
    rows = [{"path": path} | entry]
    other = [{"path": path}] if role == "test" else rows
    options = FetchOptions.model_validate(
        {"base_model": "x", "datasets": other, **more} | ({"test_datasets": rows} if role == "test" else {})
    )
    if role == "test":
        options = options.model_copy(update={"datasets": []})
    heard, draft = Heard(), Draft("raw", place / "raw")
    settings: dict[str, Any] = {"retries": options.fetch.retries, "token": options.hf_use_auth_token}
    write_rows(options, Locator(place / "data" / "sources", place / "scratch", heard, **settings), draft)
    return Fetched(draft.path, draft.content["sources"], heard.lines)


def write_parquet(path: Path, rows: list[dict[str, Any]] | pa.Table, **settings: Any) -> Path:
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows), path, **settings)
    return path


def write_arrow(path: Path, rows: list[dict[str, Any]] | pa.Table, *, stream: bool = False) -> Path:
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(path), "wb") as sink, (pa.ipc.new_stream if stream else pa.ipc.new_file)(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)
    return path


def write_lines(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows), encoding="utf-8")
    return path


def fetch_project(root: Path, *entries: Mapping[str, Any], **options: Any) -> Fetched:
    """Fetch the datasets of a params.yaml at ``root``, checked and linked by what `configure` does."""
    text = json.dumps(
        {"base_model": "owner/name", "learning_rate": 1.0, **({"datasets": entries} if entries else {}), **options}, default=str
    )
    (root / "params.yaml").write_text(text, encoding="utf-8")
    project, recipe = Project(root), load_recipe(root / "params.yaml", data_only=True)
    link_all(project.sources, local_files(project, recipe))
    place = root / ".regrow" / f"fetch-{next(_numbers)}"
    heard, draft = Heard(), Draft("raw", place / "raw")
    write_rows(recipe.view(FetchOptions), Locator(project.sources, place / "scratch", heard), draft)
    return Fetched(draft.path, draft.content["sources"], heard.lines)

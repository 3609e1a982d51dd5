"""`regrow export packed`: the bins of data/packed as rows for other trainers.

Columns, one row a bin: ``input_ids``, ``labels`` (-100 where nothing is trained), ``position_ids`` (from 0 in every document of
the bin) and ``seq_lengths`` (tokens of each document). Rows are written as they are read; memory does not grow with them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.artifact import Artifact, sync_files
from pipeline.bins import Bins
from pipeline.digest import canonical_json, digest_file
from pipeline.errors import RegrowError
from pipeline.export.files import write_split
from pipeline.export.readme import readme
from pipeline.lineage.opened import Lineage, open_lineage
from pipeline.progress import Progress


def export_packed(data: Path, folder: Path, kind: str, progress: Progress) -> str:
    """Write ``folder`` with both splits; says what was written.

    Args:
        kind: arrow, parquet or jsonl.

    Raises:
        RegrowError: the folder holds something, or data/packed is not there, does not fit data/tokens, or has rows of another kind.
    """
    _require_free(folder)
    lineage = open_lineage(data)
    packed = lineage.require("packed")
    _require_plain(lineage)
    plans = {split: bins for split, bins in lineage.bins.items() if len(bins)}
    _require_fit(lineage, packed, plans)
    with _appearing(folder) as partial:
        splits = {split: write_split(partial / split, kind, lineage.tokens.table, bins, split, progress) for split, bins in plans.items()}
        (partial / "README.md").write_text(readme(kind, splits, packed.content), encoding="utf-8")
        manifest = _manifest(partial, kind, splits, lineage, packed)
        (partial / "manifest.json").write_text(canonical_json(manifest), encoding="utf-8")
        sync_files(partial)
    rows = ", ".join(f"{facts['rows']:,} rows ({facts['tokens']:,} tokens) of {split}" for split, facts in splits.items())
    return f"Wrote {rows} to {folder}."


def _require_free(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        what = "holds files already" if folder.is_dir() else "is a file"
        raise RegrowError(f"{folder} {what}.", "Name a new folder, or empty this one first.")


def _require_plain(lineage: Lineage) -> None:
    table = lineage.tokens.table
    if table.paired or table.labelled or table.referenced:
        what = "two answers" if table.paired else "labels of their own" if table.labelled else "columns for who scores answers to them"
        raise RegrowError(
            f"The rows of data/tokens have {what}, for which input_ids and labels have no place.",
            "`regrow inspect --format jsonl` writes every row with all it has.",
        )


def _require_fit(lineage: Lineage, packed: Artifact, plans: Mapping[str, Bins]) -> None:
    """The same proof that train asks for."""
    for split, bins in plans.items():
        if bins.content_digest(lineage.tokens.table) != packed.content["content_digest"][split]:
            raise RegrowError(f"{packed.path} does not fit data/tokens: the digest of {split} differs.", "Run `regrow pack`.")


@contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """A folder beside ``folder`` that takes its name when all is written, and goes when it is not."""
    target = folder.absolute()
    partial = target.parent / f".{target.name}.{os.getpid()}.partial"
    partial.mkdir(parents=True)
    try:
        yield partial
        partial.rename(target)  # POSIX lets it replace an empty folder
    except BaseException:
        shutil.rmtree(partial)
        raise


def _manifest(folder: Path, kind: str, splits: Mapping[str, Any], lineage: Lineage, packed: Artifact) -> dict[str, Any]:
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {
        "format": kind,
        "splits": splits,
        "content_digest": {split: packed.content["content_digest"][split] for split in splits},
        "made_from": {"packed": packed.digest, "tokens": lineage.tokens.artifact.digest},
        "files": {name: {"size": path.stat().st_size, "sha256": digest_file(path)} for name, path in files.items()},
    }

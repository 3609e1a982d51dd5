"""`regrow merge --sharded`: where a checkpoint's base and tokenizer are, and where the model goes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pipeline.errors import RegrowError
from pipeline.options.recipe import load_recipe
from pipeline.options.views import MergeOptions
from pipeline.progress import Progress, open_progress
from pipeline.project import find_project

Write = Callable[[Path, Path, Path, Path | None, int, Progress], str]


def merge_sharded(shards: Path, output: Path | None, base: Path | None, write: Write) -> str:
    """Call ``write`` (see :func:`stages.merge.sharded.merge_sharded`) with what was not given filled in, and return what it says.

    With a base that is given, nothing of a project is looked at. Its tokenizer lies beside it.

    Raises:
        RegrowError: no base is given, and there is no project that has fetched one; or it is no model.
    """
    output = output or Path(f"{shards.resolve().name}-merged")
    if base is not None:
        if not (base / "config.json").is_file():
            raise RegrowError(f"--base {base} has no config.json.", "Name the folder of the model that the checkpoint was trained from.")
        return write(shards, output, base, base, MergeOptions().merge.max_shard_size_mb * 1_000_000, open_progress())
    project = find_project()
    if not (project.data / "base" / "config.json").is_file():
        raise RegrowError(f"{project.data / 'base'} is not there yet.", "Run `regrow fetch`, or name the model with --base.")
    tokenizer = project.data / "tokenizer"
    limit = load_recipe(project.params).view(MergeOptions).merge.max_shard_size_mb * 1_000_000
    return write(shards, output, project.data / "base", tokenizer if tokenizer.is_dir() else None, limit, open_progress())

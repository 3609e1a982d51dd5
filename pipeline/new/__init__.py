"""`regrow new`: a project folder of its own, from a recipe that comes along."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pipeline.errors import RegrowError
from pipeline.new.lock import lock_installed
from pipeline.new.recipes import ReadyRecipe
from pipeline.new.repository import prepare
from pipeline.options.json_schema import json_schema_text
from pipeline.shipped import shipped_files

_AS_THEY_ARE = ("dvc.yaml", ".gitignore", ".dvcignore")


def create(folder: Path, recipe: ReadyRecipe, stages: Iterable[str]) -> list[str]:
    """Write a project into ``folder`` and put it under git and DVC. What was done and what to do next, a line each.

    Raises:
        RegrowError: something in the folder is in the way, or the recipe, git or DVC cannot be used. Nothing was overwritten.
    """
    folder = folder.expanduser().resolve()
    top = shipped_files()
    lock = lock_installed(top / "requirements.lock", stages)
    copied = {name: top / name for name in _AS_THEY_ARE} | recipe.files()
    files = {name: source.read_bytes() for name, source in copied.items()}
    written = {"params.yaml": recipe.params(), "requirements.lock": lock.text, "params.schema.json": json_schema_text()}
    files |= {name: text.encode() for name, text in written.items()}
    _refuse_in_the_way(folder, files)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    done = prepare(folder)
    return [
        f"recipe {recipe.name}: {', '.join(sorted(files))}",
        *done,
        *([f"not the tested versions, so digests may differ from others': {', '.join(lock.differing)}"] if lock.differing else []),
        f"next: cd {folder} && dvc repro",
    ]


def _refuse_in_the_way(folder: Path, files: dict[str, bytes]) -> None:
    if folder.exists() and not folder.is_dir():
        raise RegrowError(f"{folder} is no folder.", "Name one that is not there yet.")
    for name, content in files.items():
        place = folder / name
        if place.exists() and (not place.is_file() or place.read_bytes() != content):
            raise RegrowError(f"{place} is there already.", "Name another folder, or move it away first.")
    for name in ("pipeline", "stages"):
        found = next((place for place in (folder / name / "__init__.py", folder / f"{name}.py") if place.exists()), None)
        if found is not None:
            raise RegrowError(f"{found}: Python would take it for regrow's own package {name!r}.", "Give it another name.")

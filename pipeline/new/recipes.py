"""The recipes that come along: params.yaml files by name, each with the data rows and modules it names."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.configure import own_files
from pipeline.errors import RegrowError
from pipeline.identity import read_lock
from pipeline.local_files import local_files
from pipeline.options.recipe import load_recipe, read_text
from pipeline.project import Project
from pipeline.shipped import shipped_files

DEFAULT = "headlines"
"""The repository's own params.yaml."""


@dataclass(frozen=True)
class ReadyRecipe:
    """``top``: the folder that paths and modules in ``file`` start from."""

    name: str
    file: Path
    top: Path

    @property
    def summary(self) -> str:
        """Its first line of comment."""
        lines = (line.removeprefix("#").strip() for line in read_text(self.file).splitlines() if line.startswith("#"))
        return next((line for line in lines if not line.startswith("yaml-language-server:")), "")

    def params(self) -> str:
        """The text of a params.yaml that lies at the top of a project."""
        lines = read_text(self.file).splitlines(keepends=True)
        kept = (line for line in lines if not line.startswith("# Run it with: cp "))
        return "".join("# yaml-language-server: $schema=params.schema.json\n" if _names_schema(line) else line for line in kept)

    def files(self) -> dict[str, Path]:
        """The files it needs, by their place in a project: what its options name, and the modules those import.

        Raises:
            RegrowError: it has problems.
        """
        project, recipe = Project(self.top), load_recipe(self.file)
        modules = own_files(project, recipe, read_lock(project.lock))
        named = [*local_files(project, recipe).values(), *recipe.files]
        return modules | {path.resolve().relative_to(self.top.resolve()).as_posix(): path for path in named}


def _names_schema(line: str) -> bool:
    return line.startswith("# yaml-language-server:")


def ready_recipes(top: Path | None = None) -> Mapping[str, ReadyRecipe]:
    """All recipes in ``top``, by default those that come with regrow, by name.

    A folder's params.yaml is called like the folder, another file like its folder and itself: ``preferences/dpo``.
    """
    top = top or shipped_files()
    found = {DEFAULT: top / "params.yaml"} if (top / "params.yaml").is_file() else {}
    for file in sorted((top / "recipes").rglob("*.yaml")):
        place = file.relative_to(top / "recipes")
        found[(place.parent if file.name == "params.yaml" else place.with_suffix("")).as_posix()] = file
    return {name: ReadyRecipe(name, file, top) for name, file in found.items()}


def find_recipe(name: str, top: Path | None = None) -> ReadyRecipe:
    """The recipe called so. The last part of its name will do where only one has it.

    Raises:
        RegrowError: there is none, or more than one.
    """
    known = ready_recipes(top)
    matching = [name] if name in known else [full for full in known if full.rpartition("/")[2] == name]
    if len(matching) == 1:
        return known[matching[0]]
    near = matching or difflib.get_close_matches(name, known, 3, 0.5)
    meant = f"Did you mean {' or '.join(near)}?" if near else f"There are: {', '.join(known)}."
    raise RegrowError(f"--recipe: {name!r} is {'the name of several' if matching else 'no'} recipe{'s' if matching else ''}.", meant)


def recipe_lines() -> list[str]:
    """One line for each recipe: its name and what it does."""
    known = ready_recipes()
    width = max(map(len, known), default=0)
    return [f"{name:<{width}}  {recipe.summary}".rstrip() for name, recipe in known.items()]

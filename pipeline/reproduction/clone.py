"""A clean clone of what is committed, with links to the local data that params.yaml names and git does not have."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from pipeline.configure import own_files
from pipeline.errors import RegrowError
from pipeline.identity import read_lock
from pipeline.local_files import local_files
from pipeline.options.recipe import Recipe, load_recipe
from pipeline.project import Project

_DECIDES = ("params.yaml", "dvc.yaml", "requirements.lock", ".dvcignore", "pipeline/", "stages/")
"""What decides results, besides files that params.yaml names. dvc.lock and data/options are results."""
_DEPTH = 4
"""Folders around the clone: as many ``..`` in params.yaml lead to a place of the clone's own."""


def uncommitted(project: Project, recipe: Recipe) -> list[str]:
    """Files that decide results and are not as the last commit has them, from the top of the git repository.

    Raises:
        RegrowError: the project is not in git, or nothing is committed.
    """
    top = git_top(project)
    own = {*own_files(project, recipe, read_lock(project.lock)).values(), *recipe.files}
    sources = set(local_files(project, recipe).values())
    changed = []
    for state, name in _changes(top):
        path = top / name
        inside = path.relative_to(project.root).as_posix() if path.is_relative_to(project.root) else None
        decides = inside is not None and inside.startswith(_DECIDES)
        is_source = state != "??" and _among(path, sources)  # what git does not know is linked
        if decides or is_source or _among(path, own):
            changed.append(name)
    return changed


def _among(path: Path, files: set[Path]) -> bool:
    return os.path.normpath(path) in {os.path.normpath(file) for file in files}


def git_top(project: Project) -> Path:
    """The folder of the git repository that the project is in, which has a commit."""
    try:
        top = Path(_git(project.root, "rev-parse", "--show-toplevel").strip()).resolve()
        _git(top, "rev-parse", "--verify", "HEAD")
    except RegrowError as error:
        raise RegrowError(
            f"{project.root} is not in a git repository with a commit: {error.message}", "Run: git init && git add . && git commit"
        ) from None
    return top


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, check=False)
    except FileNotFoundError:
        raise RegrowError("git is not installed.") from None
    if done.returncode:
        raise RegrowError(f"git {arguments[0]}: {done.stderr.decode(errors='replace').strip()}")
    return os.fsdecode(done.stdout)


def _changes(top: Path) -> Iterator[tuple[str, str]]:
    """(state, name) of every file that is not as committed; of one that was renamed, both names."""
    parts = iter(_git(top, "status", "--porcelain", "-z", "--untracked-files=all").split("\0"))
    for part in parts:
        if part:
            yield part[:2].strip(), part[3:]
            if part[0] in "RC":
                yield "D", next(parts)


def make_clone(project: Project, scratch: Path, *, with_changes: list[str]) -> Project:
    """Clone the last commit into ``scratch``, at a path of another length; lay the files ``with_changes`` over it.

    Raises:
        RegrowError: git refuses, or HEAD holds no such project.
    """
    top = git_top(project)
    place = scratch.joinpath(*("d" * (_DEPTH - 1)), "clone")
    inside = project.root.relative_to(top)
    while len(str(place / inside)) == len(str(project.root)):
        place = place.with_name(f"{place.name}-")
    place.parent.mkdir(parents=True)
    _git(scratch, "clone", "--quiet", "--no-hardlinks", str(top), str(place))
    for name in with_changes:
        (place / name).unlink(missing_ok=True)
        if (top / name).exists():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(top / name, place / name)
    clone = Project(place / inside)
    for path in (clone.params, clone.root / "dvc.yaml"):
        if not path.is_file():
            raise RegrowError(f"{path.name} of {project.root} is not committed.", "Commit it, or give --with-changes.")
    _link_sources(project, clone, load_recipe(project.params), scratch)
    return clone


def _link_sources(project: Project, clone: Project, recipe: Recipe, scratch: Path) -> None:
    """Local files by relative paths that are not in the clone: links at the same place from there."""
    files = [*local_files(project, recipe).values(), *recipe.files]
    if recipe.options.lora_model_dir is not None:
        files += (project.root / Path(recipe.options.lora_model_dir).expanduser()).glob("*")
    for file in files:
        name = os.path.relpath(os.path.normpath(file), project.root)
        place = Path(os.path.normpath(clone.root / name))
        if place.is_relative_to(scratch) and not os.path.lexists(place):
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(file.resolve())

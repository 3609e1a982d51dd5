"""Who scores answers, as far as a run's identity goes: modules of the user's own, and the bytes of reward models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipeline.digest import digest_file
from pipeline.errors import RegrowError
from pipeline.identity import find_module
from pipeline.options.recipe import Recipe
from pipeline.options.views import TrainOptions
from pipeline.project import Project

_LIBRARY = "trl.rewards."
"""Functions that come with TRL; which ones they are follows from its version."""


def scoring_modules(project: Project, recipe: Recipe) -> list[str]:
    """Modules of the project that ``trl.reward_funcs`` and ``trl.rollout_func`` name.

    Raises:
        RegrowError: a name is neither a function of a module in the project nor a folder.
    """
    return sorted({_module(project, option, name) for option, name in _functions(project, recipe) if not name.startswith(_LIBRARY)})


def reward_identities(project: Project, recipe: Recipe) -> list[str | dict[str, str]]:
    """``trl.reward_funcs`` with folders as SHA-256 (hex) of their files: an edited reward model trains again, a moved one does not."""
    return [_digests(folder) if (folder := _folder(project, name)) else name for name in _names(recipe)]


def _names(recipe: Recipe) -> list[str]:
    trl = recipe.view(TrainOptions).trl
    return [] if trl is None else trl.reward_funcs or []


def _functions(project: Project, recipe: Recipe) -> Iterator[tuple[str, str]]:
    yield from (("trl.reward_funcs", name) for name in _names(recipe) if _folder(project, name) is None)
    trl = recipe.view(TrainOptions).trl
    if trl is not None and trl.rollout_func is not None:
        yield "trl.rollout_func", trl.rollout_func


def _folder(project: Project, name: str) -> Path | None:
    path = project.root / Path(name).expanduser()
    return path if path.is_dir() else None


def _digests(folder: Path) -> dict[str, str]:
    files = {path.name: digest_file(path) for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")}
    return {"name": folder.name, **files}


def _module(project: Project, option: str, name: str) -> str:
    module = name.rpartition(".")[0]
    if not module or "/" in name or find_module(project.root, module) is None:
        folder = "" if option == "trl.rollout_func" else " nor a folder"
        raise RegrowError(
            f"params.yaml: {option}: {name!r} is neither a function of a module in {project.root}{folder}.",
            "Name a function as package.module.function, in a file of this project, where a change to it can be seen"
            + (". A reward model on the hub: download it, and name its folder." if folder else "."),
        )
    return module

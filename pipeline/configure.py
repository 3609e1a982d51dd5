"""configure: params.yaml becomes one canonical file per stage, and links to what it names on this disk.

* ``data/options/<stage>.json``: the options the stage reads with defaults resolved, a digest of its code, the versions
  of its libraries. A stage depends on its file and its inputs and on nothing else.
* ``data/sources/<slot>/``: links to local files that params.yaml names, so that DVC sees when their bytes change.
* ``data/modules/``: links to the user's own modules and chat templates, so that a change there configures again.
* ``output_dir``, if it is set: links to the artifacts that are shipped.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from pipeline.adapter_folder import adapter_identity
from pipeline.digest import canonical_json
from pipeline.errors import RegrowError
from pipeline.identity import code_identity, find_module, read_lock
from pipeline.local_files import local_files
from pipeline.module_code import CodeMemory
from pipeline.options.dataset_types import is_own
from pipeline.options.recipe import Recipe
from pipeline.options.views import TokenizeOptions, TrainOptions
from pipeline.output import make_links, output_links
from pipeline.project import Project
from pipeline.scoring import reward_identities, scoring_modules
from pipeline.stage import Stage


def configure(project: Project, recipe: Recipe, stages: Iterable[Stage]) -> None:
    """Write all of these. Files that would not change are left as they are."""
    lock = read_lock(project.lock)
    files, outputs = local_files(project, recipe), output_links(project, recipe.options.output_dir)
    documents = {stage.name: stage_document(project, recipe, stage, lock) for stage in stages}
    for name, document in documents.items():
        _write(project, project.options / f"{name}.json", canonical_json(document))
    link_all(project.sources, files)
    texts = {f"texts/{number}": file for number, file in enumerate(recipe.files)}
    link_all(project.data / "modules", own_files(project, recipe, lock) | texts)
    make_links(outputs)
    code_memory(project).save()


def stage_document(project: Project, recipe: Recipe, stage: Stage, lock: dict[str, str]) -> dict[str, Any]:
    """What identifies a stage apart from its inputs: ``options``, ``code``, ``packages``."""
    modules = [f"stages.{stage.name}", *(own_modules(project, recipe) if stage.options is TokenizeOptions else [])]
    modules += scoring_modules(project, recipe) if stage.options is TrainOptions else []
    options = recipe.view(stage.options).canonical()
    if options.get("trl", {}).get("reward_funcs"):
        options["trl"]["reward_funcs"] = reward_identities(project, recipe)
    if options.get("lora_model_dir") is not None:
        options["lora_model_dir"] = adapter_identity(project, recipe)
    return {"options": options, **code_identity(project.root, modules, lock, code_memory(project))}


@lru_cache(maxsize=8)
def code_memory(project: Project) -> CodeMemory:
    """Modules that `configure` parsed before in this project."""
    return CodeMemory(project.scratch / "cache" / "modules.json")


def _write(project: Project, path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    former = path.read_bytes() if path.exists() else None
    if former != text.encode():
        if former is not None:
            _keep(project, former)
        path.write_text(text, encoding="utf-8")


def kept_document(project: Project, md5: str) -> Path:
    """Where a document of former options is kept, by DVC's hash of it: `regrow plan` compares with that of the last run."""
    return project.scratch / "options" / f"{md5}.json"


_KEPT = 400
"""So many are kept, a few megabytes: the newest."""


def _keep(project: Project, document: bytes) -> None:
    path = kept_document(project, hashlib.md5(document, usedforsecurity=False).hexdigest())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(document)
    for old in sorted(path.parent.iterdir(), key=lambda file: file.stat().st_mtime_ns)[:-_KEPT]:
        old.unlink(missing_ok=True)


def own_modules(project: Project, recipe: Recipe) -> list[str]:
    """Modules of the user's own that dataset types name.

    Raises:
        RegrowError: one is not in the project, where a change to it could be seen.
    """
    view = recipe.view(TokenizeOptions)
    types = [entry.type for entry in [*view.datasets, *(view.test_datasets or []), *(view.dedupe.against or [])]]
    names = {kind for kind in types if isinstance(kind, str) and is_own(kind)}
    return sorted({_own_module(project, name) for name in names})


def _own_module(project: Project, name: str) -> str:
    found = next((module for module in (name, name.rpartition(".")[0]) if find_module(project.root, module)), None)
    if found is None:
        raise RegrowError(
            f"params.yaml: dataset type {name!r} is neither a type that regrow knows nor a module or function in {project.root}.",
            "Put the module into the project and name it from there; regrow watches it, and what it imports from the project.",
        )
    return found


def own_files(project: Project, recipe: Recipe, lock: dict[str, str]) -> dict[str, Path]:
    """The user's own modules and all that they import from the project, by path."""
    modules = [*own_modules(project, recipe), *scoring_modules(project, recipe)]
    code = code_identity(project.root, modules, lock, code_memory(project))["code"]
    return {name: project.root / name for name in code if not name.startswith(("pipeline/", "stages/"))}


def link_all(folder: Path, targets: Mapping[str, Path | None]) -> None:
    """Make ``folder`` hold exactly these links (relative inside the project, so that a moved project keeps working)."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / "index.json").write_text(canonical_json(sorted(targets)), encoding="utf-8")
    for name, target in targets.items():
        assert target is not None
        link = folder / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(target.resolve(), link.parent.resolve()))


def explain_difference(recorded: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """The fields in which two per-stage documents differ, as dotted names with both values."""
    lines: list[str] = []
    for key in sorted(recorded.keys() | current.keys()):
        old, new = recorded.get(key), current.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            lines += [f"{key}.{line}" for line in explain_difference(old, new)]
        elif old != new:
            lines.append(f"{key}: {old!r} -> {new!r}")
    return lines

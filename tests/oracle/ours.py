"""A case's config and data through our own stages fetch, tokenize, dedupe and pack, in this process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipeline.artifact import Draft, open_artifact, publish, seal
from pipeline.bins import Bins
from pipeline.configure import link_all, local_files
from pipeline.errors import RegrowError
from pipeline.options.recipe import Recipe, load_recipe
from pipeline.options.views import FetchOptions
from pipeline.progress import Progress
from pipeline.project import Project
from pipeline.runner import execute
from pipeline.stage import Stage
from pipeline.tokens import TokenTable
from stages.dedupe import STAGE as DEDUPE
from stages.fetch.locate import Locator, Wanted
from stages.fetch.rows import write_rows
from stages.fetch.tokenizer import write_tokenizer
from stages.pack import STAGE as PACK
from stages.tokenize import STAGE as TOKENIZE
from tests.oracle.case import Made, Row, Sequence

_YAML = YAML(typ="safe", pure=True)
_YAML.allow_unicode = True


class Quiet(Progress):
    """Says nothing, remembers all."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)


def make_rows(case: Path, tokenizers: Path, workspace: Path, cache: Path) -> Made:
    """Rows that we make of a case. ``base_model: tokenizers/NAME`` is a folder of ``tokenizers``."""
    project, progress = Project(workspace), Quiet()
    _write_project(case, tokenizers, workspace)
    try:
        recipe = load_recipe(project.params, data_only=True)
        _fetch(project, recipe, progress)
        for stage in (TOKENIZE, DEDUPE, PACK):
            _run(project, recipe, stage, cache, progress)
    except RegrowError as error:
        return Made(error=str(error))
    return _read_back(project.data, bool(recipe.options.process_reward_model))


def _write_project(case: Path, tokenizers: Path, workspace: Path) -> None:
    workspace.mkdir(parents=True)
    for path in case.iterdir():
        if not path.name.startswith(("expected", "meta", "config")):
            (workspace / path.name).symlink_to(path.resolve())
    config = _YAML.load((case / "config.yml").read_text(encoding="utf-8"))
    for key in ("base_model", "tokenizer_config"):
        if str(config.get(key, "")).startswith("tokenizers/"):
            config[key] = str((tokenizers / config[key].removeprefix("tokenizers/")).resolve())
    _YAML.dump(config, workspace / "params.yaml")


def _fetch(project: Project, recipe: Recipe, progress: Progress) -> None:
    """What the fetch stage does, but for the weights, which the cases do not have."""
    link_all(project.sources, local_files(project, recipe))
    options = recipe.view(FetchOptions)
    locator = Locator(project.sources, project.scratch / "fetch", progress)
    drafts = {name: Draft(name, project.data / ".partial" / name) for name in ("raw", "tokenizer")}
    for draft in drafts.values():
        draft.path.mkdir(parents=True)
    write_rows(options, locator, drafts["raw"])
    wanted = Wanted("base_model", "base", options.base_model, "model")
    model = locator.locate(wanted, lambda names: list(names))
    write_tokenizer(options, model, model, drafts["tokenizer"], progress.say)
    for name, draft in drafts.items():
        seal(draft, {})
        publish(draft, project.data / name)


def _run(project: Project, recipe: Recipe, stage: Stage, cache: Path, progress: Progress) -> None:
    execute(
        stage,
        recipe.view(stage.options),
        data=project.data,
        scratch=project.scratch / stage.name,
        sources=project.sources,
        identity="oracle",
        code="oracle",
        cache=cache / stage.name,
        progress=progress,
    )


def _read_back(data: Path, labels_of_tokens: bool) -> Made:
    table, packed = TokenTable(data / "tokens"), data / "packed"
    open_artifact(packed)
    rejected = [json.loads(line)["reason"] for line in (data / "tokens" / "rejected.jsonl").read_text(encoding="utf-8").splitlines()]
    sides = [tuple(_rows(table, Bins.load(packed / f"{split}.arrow"), labels_of_tokens)) for split in ("train", "eval")]
    return Made(sides[0], sides[1], rejected=tuple(rejected))


def _rows(table: TokenTable, bins: Bins, labels_of_tokens: bool) -> Iterator[Row]:
    for number in range(len(bins)):
        for row, start, length in bins.spans(number):
            cut = slice(start, start + length)
            labels: Any = table.labels(row) if table.labelled else None
            per_token = labels if labels_of_tokens else None
            chosen = Sequence.of(table.ids(row)[cut], table.mask(row)[cut], per_token)
            rejected = Sequence.of(table.rejected_ids(row), table.rejected_mask(row)) if table.paired else None
            wanted = bool(labels[0]) if labels is not None and per_token is None else None
            yield Row(chosen, rejected, wanted)

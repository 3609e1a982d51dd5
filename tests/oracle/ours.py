"""A case's config and data through our own stages fetch, tokenize, dedupe and pack, in this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML

from pipeline.artifact import Draft, open_artifact, publish, seal
from pipeline.bins import Bins
from pipeline.configure import link_all
from pipeline.errors import RegrowError
from pipeline.local_files import local_files
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
from tests.oracle.case import Made, Row, Sequence, read_config

_YAML = YAML(typ="safe", pure=True)
_YAML.allow_unicode = True


class Quiet(Progress):
    """Says nothing, remembers all."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)


@dataclass(frozen=True)
class Change:
    """A case made another one: its config, and each row of its JSON Lines. Both functions change what they get."""

    config: Callable[[dict[str, Any]], None] = lambda config: None
    row: Callable[[dict[str, Any]], None] | None = None


def make_rows(case: Path, tokenizers: Path, workspace: Path, cache: Path, change: Change = Change()) -> Made:
    """Rows that we make of a case. ``base_model: tokenizers/NAME`` is a folder of ``tokenizers``."""
    project, progress = Project(workspace), Quiet()
    _write_project(case, tokenizers, workspace, change)
    try:
        recipe = load_recipe(project.params, data_only=True)
        _fetch(project, recipe, progress)
        for stage in (TOKENIZE, DEDUPE, PACK):
            _run(project, recipe, stage, cache, progress)
    except RegrowError as error:
        return Made(error=str(error))
    return _read_back(project.data, bool(recipe.options.process_reward_model))


def _write_project(case: Path, tokenizers: Path, workspace: Path, change: Change) -> None:
    workspace.mkdir(parents=True)
    for path in case.iterdir():
        if path.name.startswith(("expected", "meta", "config")):
            continue
        if change.row is not None and path.suffix == ".jsonl":
            (workspace / path.name).write_text(_changed(path.read_text(encoding="utf-8-sig"), change.row), encoding="utf-8")
        else:
            (workspace / path.name).symlink_to(path.resolve())
    config = read_config(case)
    change.config(config)
    for key in ("base_model", "tokenizer_config"):
        if str(config.get(key, "")).startswith("tokenizers/"):
            config[key] = str((tokenizers / config[key].removeprefix("tokenizers/")).resolve())
    _YAML.dump(config, workspace / "params.yaml")


def _changed(text: str, change: Callable[[dict[str, Any]], None]) -> str:
    rows = [json.loads(line) for line in text.split("\n") if line.strip()]
    for row in rows:
        change(row)
    return "".join(json.dumps(row) + "\n" for row in rows)


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
            yield Row(chosen, rejected, wanted, (int(table.source[row]), int(table.row[row])))


def raw_rows(data: Path) -> dict[tuple[int, int], dict[str, Any]]:
    """Rows of the data by the number that :class:`Row` has; those that are no JSON object are left out."""
    if not (data / "raw").exists():
        return {}
    found: dict[tuple[int, int], dict[str, Any]] = {}
    for source, facts in enumerate(open_artifact(data / "raw").content["sources"]):
        lines = (data / "raw" / facts["rows_file"]).read_bytes().split(b"\n")
        numbers = None if facts["numbers"] is None else np.fromfile(data / "raw" / facts["numbers"], "<i8")
        for place, line in enumerate(lines):
            if line.strip() and isinstance(row := _parsed(line), dict):
                found[source, place if numbers is None else int(numbers[place])] = row
    return found


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line.removeprefix(b"\xef\xbb\xbf"))
    except ValueError:
        return None

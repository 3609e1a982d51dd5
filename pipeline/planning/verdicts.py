"""What becomes of each stage: nothing to do, taken from DVC's cache, run, or run if what it reads comes out different."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from pipeline.configure import stage_document
from pipeline.digest import canonical_json
from pipeline.errors import RegrowError
from pipeline.identity import check_installed, read_lock
from pipeline.local_files import local_files
from pipeline.options.recipe import Recipe
from pipeline.output import output_links
from pipeline.planning.reasons import Reason, document_reasons, input_reasons, output_reasons
from pipeline.planning.recorded import Hashes, Locked, Recorded, open_recorded, text_hash
from pipeline.project import Project
from pipeline.stage import Stage


class Verdict(StrEnum):
    """What `dvc repro` does with a stage."""

    nothing = "nothing to do"
    cached = "from cache"
    waits = "may run"
    runs = "runs"


@dataclass(frozen=True)
class Planned:
    """A stage, and what becomes of it.

    Attributes:
        waits_for: artifacts it reads of which it is not known whether they come out different.
        refused: why the run would be refused as things are.
    """

    stage: Stage
    verdict: Verdict
    reasons: tuple[Reason, ...] = ()
    waits_for: tuple[str, ...] = ()
    refused: str | None = None


@dataclass
class _Outlook:
    """What each path will hash to when a stage reads it; ``None`` where that is known only when the stage that writes it has run."""

    recorded: Recorded
    known: dict[str, str | None]
    sources: Mapping[str, Path]
    documents: dict[str, str] = field(default_factory=dict)

    def inputs(self, locked: Locked) -> tuple[Hashes, tuple[str, ...]]:
        """Hashes of a stage's inputs, and those inputs whose hash is not known yet."""
        values = {path: self.known[path] if path in self.known else self.recorded.found(path) or "" for path in locked.inputs}
        return {path: value for path, value in values.items() if value is not None}, tuple(
            p for p, value in values.items() if value is None
        )


def plan(project: Project, recipe: Recipe, stages: Sequence[Stage]) -> list[Planned]:
    """What `dvc repro` would do with each of ``stages``, in their order.

    Raises:
        RegrowError: what `configure` would refuse too; the project is no DVC repository.
    """
    lock, files = read_lock(project.lock), local_files(project, recipe)
    output_links(project, recipe.options.output_dir)
    documents = {stage.name: stage_document(project, recipe, stage, lock) for stage in stages}
    texts = {name: canonical_json(document) for name, document in documents.items()}
    with open_recorded(project) as recorded:
        known: dict[str, str | None] = {f"data/options/{name}.json": text_hash(text) for name, text in texts.items()}
        known["data/sources"] = _sources_hash(project, recorded, files)
        outlook = _Outlook(recorded, known, files, texts)
        return [_judge(project, outlook, stage, documents[stage.name]["packages"]) for stage in stages]


def _sources_hash(project: Project, recorded: Recorded, files: Mapping[str, Path]) -> str:
    """Hash of data/sources as `configure` will leave it. Where its links lead there already, DVC knows the files by them."""
    index, folder = canonical_json(sorted(files)), project.sources
    written = folder / "index.json"
    same = written.exists() and written.read_bytes() == index.encode()
    if same and all(os.path.realpath(folder / name) == os.path.realpath(file) for name, file in files.items()):
        return recorded.found("data/sources") or ""
    return recorded.hash_of("data/sources", files, {"index.json": index})


def _judge(project: Project, outlook: _Outlook, stage: Stage, packages: dict[str, str]) -> Planned:
    locked = outlook.recorded.stage(stage.name)
    inputs, waits_for = outlook.inputs(locked)
    own = [] if locked.is_frozen else [*_own_reasons(project, outlook, locked, stage, inputs)]
    damaged = [*output_reasons(outlook.recorded, locked)]
    verdict, outputs = _verdict(outlook.recorded, locked, inputs, waits=bool(waits_for), changed=bool(own), damaged=bool(damaged))
    outlook.known |= outputs
    waits = waits_for if verdict in (Verdict.waits, Verdict.runs) else ()
    refused = _refused(packages) if verdict in (Verdict.waits, Verdict.runs) else None
    return Planned(stage, verdict, (*own, *damaged), waits, refused)


def _own_reasons(project: Project, outlook: _Outlook, locked: Locked, stage: Stage, inputs: Hashes) -> list[Reason]:
    if not locked.is_known:
        return [Reason("run", "", what="none of it is in dvc.lock")]
    document, others = f"data/options/{stage.name}.json", dict(inputs)
    others.pop(document, None)
    found = [] if locked.same_command else [Reason("command", "", what=f"is now {locked.command!r}")]
    found += document_reasons(project, stage.name, locked.input_hashes.get(document, ""), outlook.documents[stage.name])
    return [*found, *input_reasons(project, locked, others, outlook.sources)]


def _verdict(
    recorded: Recorded, locked: Locked, inputs: Hashes, *, waits: bool, changed: bool, damaged: bool
) -> tuple[Verdict, Mapping[str, str | None]]:
    """And what its outputs hash to afterwards, as far as that is known."""
    unknown: Mapping[str, str | None] = dict.fromkeys(locked.outputs)
    if waits and not locked.is_frozen:
        sure = changed or (damaged and recorded.restored(locked, locked.input_hashes) is None)
        return (Verdict.runs if sure else Verdict.waits), unknown
    if not changed and not damaged:
        return Verdict.nothing, locked.output_hashes
    restored = recorded.restored(locked, locked.input_hashes if locked.is_frozen else inputs)
    return (Verdict.runs, unknown) if restored is None else (Verdict.cached, restored)


def _refused(packages: dict[str, str]) -> str | None:
    try:
        check_installed(packages)
    except RegrowError as error:
        return str(error)
    return None

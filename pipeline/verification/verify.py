"""All checks, stage by stage, and what they found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pipeline.errors import RegrowError
from pipeline.progress import Progress
from pipeline.project import Project
from pipeline.stage import Stage
from pipeline.verification.artifacts import check_artifact, read_manifest
from pipeline.verification.chain import LOCK_REMEDY, SOURCES, Broken, Chain
from pipeline.verification.recorded import BrokenLock, Recorded, RecordedStage

_CONFIGURE = "configure"


@dataclass(frozen=True)
class Row:
    """A line of the table. ``digest`` (hex): an artifact's own; of what has no manifest, DVC's MD5."""

    stage: str
    what: str
    files: int
    size: int
    digest: str
    state: str


@dataclass
class Verified:
    """What was looked at, and the links that do not hold, in the order of the pipeline."""

    rows: list[Row] = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)


def verify(project: Project, stages: Sequence[Stage], target: str | None, progress: Progress) -> Verified:
    """Check everything, or ``target`` and all that it stands on. Reads every byte once.

    Raises:
        RegrowError: not a DVC repository; ``target`` never ran.
    """
    try:
        recorded = Recorded(project)
    except BrokenLock as error:
        return Verified(broken=[Broken(_CONFIGURE, "dvc.lock", error.message, error.remedy or "")])
    _require_declared(recorded, stages)
    if target is not None and not recorded.stages[target].ran:
        raise RegrowError(f"{target} has not run: there is nothing to verify.", f"Run: regrow {target}")
    chosen = stages if target is None else under(stages, target)
    found = Verified()
    with progress.task("verify", total=_megabytes(recorded, chosen), unit="MB") as task:
        chain = Chain(project, recorded, task)
        _check_configure(chain, chosen, found)
        for stage in chosen:
            _check_stage(chain, stage, stages, found)
    return found


def under(stages: Sequence[Stage], target: str) -> list[Stage]:
    """``target`` and the stages that it stands on, in their order."""
    wanted: set[str] = set()
    for stage in reversed(stages):
        if stage.name == target or wanted & set(stage.writes):
            wanted |= {*stage.reads, *stage.writes}
    return [stage for stage in stages if set(stage.writes) <= wanted]


def _require_declared(recorded: Recorded, stages: Sequence[Stage]) -> None:
    missing = [name for name in (_CONFIGURE, *(stage.name for stage in stages)) if name not in recorded.stages]
    if missing:
        raise RegrowError(f"dvc.yaml has no stage {missing[0]!r}.", "Run: git checkout dvc.yaml")


def _megabytes(recorded: Recorded, stages: Sequence[Stage]) -> int:
    sizes = {entry.path: entry.size or 0 for stage in stages for entry in recorded.stages[stage.name].entries}
    return sum(sizes.values()) >> 20


def _check_configure(chain: Chain, stages: Sequence[Stage], found: Verified) -> None:
    """params.yaml, the code and the lock file as `configure` read them; what it wrote for the stages."""
    recorded = chain.recorded.stages[_CONFIGURE]
    left_out = {path for path in recorded.outs if path.startswith("data/options/")} - {_options(stage) for stage in stages}
    entries = [entry for entry in recorded.entries if entry.path not in left_out]
    broken = [*_ran(recorded), *(link for entry in entries for link in chain.compare(entry))] if recorded.ran else []
    if not recorded.ran:
        broken = [Broken(_CONFIGURE, "dvc.lock", "dvc.lock has no `configure`: nothing has run yet.", "Run: dvc repro")]
    found.broken += broken
    _row(chain, found, _CONFIGURE, "data/options", [_options(stage) for stage in stages], broken)
    _row(chain, found, _CONFIGURE, SOURCES, [SOURCES], broken)


def _options(stage: Stage) -> str:
    return f"data/options/{stage.name}.json"


def _ran(recorded: RecordedStage) -> Iterator[Broken]:
    if recorded.command_changed:
        problem = f"dvc.lock: {recorded.name}: cmd is not that of dvc.yaml."
        yield Broken(recorded.name, "dvc.lock", problem, LOCK_REMEDY)


def _check_stage(chain: Chain, stage: Stage, stages: Sequence[Stage], found: Verified) -> None:
    recorded = chain.recorded.stages[stage.name]
    if not recorded.ran:
        there = [f"data/{name}" for name in stage.writes if (chain.project.data / name).exists()]
        problem = f"dvc.lock says nothing of {stage.name}, though {', '.join(there)} is there."
        found.broken += [Broken(stage.name, "dvc.lock", problem, f"{LOCK_REMEDY}; or remove {' '.join(there)}")] if there else []
        found.rows += [Row(stage.name, f"data/{name}", 0, 0, "", "broken" if there else "not run") for name in stage.writes]
        return
    readers = {name: tuple(out for other in stages if name in other.reads for out in other.writes) for name in stage.writes}
    before = [*_ran(recorded), *(link for entry in recorded.deps.values() for link in chain.compare(entry))]
    found.broken += before
    for name in stage.writes:
        broken = list(check_artifact(chain, stage, name, readers))
        found.broken += broken
        _row(chain, found, stage.name, f"data/{name}", [f"data/{name}"], [*before, *broken])


def _row(chain: Chain, found: Verified, stage: str, what: str, paths: Sequence[str], broken: Sequence[Broken]) -> None:
    measured = [seen for path in paths if (seen := chain.look(path)) is not None]
    files, size = sum(len(seen.files) for seen in measured), sum(seen.size for seen in measured)
    found.rows.append(Row(stage, what, files, size, _digest(chain, what, paths), "broken" if broken else "verified"))


def _digest(chain: Chain, what: str, paths: Sequence[str]) -> str:
    if what.startswith("data/options") or what == SOURCES:
        seen = chain.look(paths[0]) if len(paths) == 1 else None
        return seen.md5 if seen else ""
    try:
        return read_manifest(chain, what.removeprefix("data/")).digest
    except ValueError:
        return ""

"""Every digest of the clone with those of the project: one verdict a stage."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifact import open_artifact
from pipeline.digest import digest_json
from pipeline.errors import RegrowError
from pipeline.project import Project
from pipeline.reproduction import levels
from pipeline.reproduction.difference import difference_in_file, first_difference
from pipeline.stage import Stage
from pipeline.verification.recorded import Recorded, RecordedStage

IDENTICAL, DIFFERS, EXCUSED, FOLLOWS, NOTHING, DID_NOT_RUN = (
    "identical",
    "DIFFERS",
    "differs",
    "inputs differ",
    "nothing to compare with",
    "did not run",
)


@dataclass(frozen=True)
class Verdict:
    """One stage. ``digest``: of what it wrote in the clone; ``compared``: with what; ``lines``: what differs, first differences."""

    stage: str
    level: str
    verdict: str
    digest: str = ""
    compared: str = ""
    seconds: float | None = None
    lines: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Nothing that was promised is broken."""
        return self.verdict in (IDENTICAL, EXCUSED, FOLLOWS, NOTHING)


def compare(project: Project, clone: Project, stages: Sequence[Stage]) -> list[Verdict]:
    """A verdict for ``configure`` and each of ``stages``, in order."""
    before, now = Recorded(project).stages, Recorded(clone).stages
    machines = levels.trained_on(project.data), levels.trained_on(clone.data)
    verdicts = [_configured(project, clone, stages, before["configure"], now["configure"])]
    differing: set[str] = set()
    for stage in stages:
        verdict = _judge(project, clone, stage, before[stage.name], now[stage.name], machines, differing)
        verdicts.append(verdict)
        if verdict.verdict not in (IDENTICAL, NOTHING):
            differing |= set(stage.writes)
    return verdicts


def _configured(project: Project, clone: Project, stages: Sequence[Stage], before: RecordedStage, now: RecordedStage) -> Verdict:
    """The options files and the digest of the sources: what the stages of the clone started from."""
    paths = [f"data/options/{stage.name}.json" for stage in stages] + ["data/sources"]
    if not now.ran:
        return Verdict("configure", "L0", DID_NOT_RUN)
    if not before.ran:
        return Verdict("configure", "L0", NOTHING)
    wrong = [path for path in paths if before.outs[path].md5 != now.outs[path].md5]
    lines = tuple(_options_line(project, clone, path) for path in wrong[:1])
    return Verdict("configure", "L0", DIFFERS if wrong else IDENTICAL, compared="dvc.lock", lines=lines)


def _options_line(project: Project, clone: Project, path: str) -> str:
    if path == "data/sources":
        return f"{path}: a source file is not the one that dvc.lock knows (`regrow verify fetch` names it)"
    there = (project.root / path).is_file()
    where = difference_in_file(project.root / path, clone.root / path) if there else None
    return f"{path}: {where or 'dvc.lock has other bytes'}"


def _judge(
    project: Project,
    clone: Project,
    stage: Stage,
    before: RecordedStage,
    now: RecordedStage,
    machines: tuple[Mapping[str, Any], Mapping[str, Any]],
    differing: set[str],
) -> Verdict:
    level = levels.level(stage.name, machines[1].get("holds_on", {}))
    if not now.ran:
        return Verdict(stage.name, level, DID_NOT_RUN)
    digests = {name: (_digest(project.data / name), _digest(clone.data / name)) for name in stage.writes}
    built = any(old is not None for old, _ in digests.values())
    compared = " and ".join([*(["dvc.lock"] if before.ran else []), *(["manifests"] if built else [])])
    facts: dict[str, Any] = {"digest": _of_all(digests), "compared": compared, "seconds": _seconds(clone, stage)}
    wrong = [name for name in stage.writes if _is_other(name, before, now, digests[name])]
    if not compared:
        return Verdict(stage.name, level, NOTHING, **facts)
    if not wrong:
        return Verdict(stage.name, level, IDENTICAL, **facts)
    lines = tuple(_first(project, clone, name) for name in wrong)
    if differing & set(stage.reads):
        return Verdict(stage.name, level, FOLLOWS, **facts)
    excuse = levels.excuse(stage.name, *machines)
    return Verdict(stage.name, level, EXCUSED if excuse else DIFFERS, **facts, lines=(*([excuse] if excuse else []), *lines))


def _is_other(name: str, before: RecordedStage, now: RecordedStage, digests: tuple[str | None, str | None]) -> bool:
    path, (old, new) = f"data/{name}", digests
    return (before.ran and before.outs[path].md5 != now.outs[path].md5) or (old is not None and old != new)


def _digest(folder: Path) -> str | None:
    """An artifact's digest; ``None``: there is none that can be read."""
    try:
        return open_artifact(folder, verify=False).digest
    except RegrowError:
        return None


def _of_all(digests: Mapping[str, tuple[str | None, str | None]]) -> str:
    """The digest of the only artifact in the clone, or one over those of all."""
    found = {name: new for name, (_, new) in digests.items()}
    return digest_json(found) if len(found) > 1 else next(iter(found.values())) or ""


def _first(project: Project, clone: Project, name: str) -> str:
    if not (project.data / name).is_dir():
        return f"data/{name}: dvc.lock has another digest; data/{name} is not here to compare file by file (`dvc pull` may bring it)"
    where = first_difference(project.data / name, clone.data / name)
    return (
        f"data/{name}/{where}" if where else f"data/{name} is the same here as in the clone: dvc.lock has another digest (`regrow verify`)"
    )


def _seconds(clone: Project, stage: Stage) -> float | None:
    try:
        record = json.loads((clone.data / "metrics" / f"{stage.name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    seconds = record.get("seconds")
    return float(seconds) if isinstance(seconds, int | float) else None

"""`regrow plan`: which stages would run, and why, field by field, without changing anything."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from pipeline.configure import explain_difference, stage_document
from pipeline.identity import read_lock
from pipeline.local_files import local_files
from pipeline.options.recipe import Recipe
from pipeline.project import Project
from pipeline.stage import Stage


@dataclass
class Plan:
    """What would be done.

    Attributes:
        lines: one per stage that would run and one per reason.
        changed: artifacts that would be written, or may be.
    """

    lines: list[str] = field(default_factory=list)
    changed: set[str] = field(default_factory=set)


def plan(project: Project, recipe: Recipe, stages: Iterable[Stage]) -> Plan:
    """Which stages would run, and why.

    A stage surely runs when its own options, code or libraries differ from those of its last configuration, or when an
    output is missing. It runs after another one only if what that one writes comes out different.
    """
    lock, found = read_lock(project.lock), Plan()
    local_files(project, recipe)
    for stage in stages:
        reasons = list(_reasons(project, recipe, stage, lock))
        upstream = [name for name in stage.reads if name in found.changed]
        if reasons:
            found.lines += [f"{stage.name}: runs", *(f"    {reason}" for reason in reasons)]
        elif upstream:
            found.lines.append(f"{stage.name}: runs if {', '.join(f'data/{name}' for name in upstream)} {_change(upstream)}")
        if reasons or upstream:
            found.changed |= set(stage.writes)
    return found


def _change(names: list[str]) -> str:
    return "changes" if len(names) == 1 else "change"


def _reasons(project: Project, recipe: Recipe, stage: Stage, lock: dict[str, str]) -> Iterator[str]:
    missing = [f"data/{name}" for name in stage.writes if not (project.data / name).exists()]
    if missing:
        yield f"{', '.join(missing)} not there"
    if not (project.options / f"{stage.name}.json").exists():
        yield "never configured"
        return
    recorded = project.stage_options(stage.name)
    yield from explain_difference(recorded, stage_document(project, recipe, stage, lock))

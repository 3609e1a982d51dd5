"""`regrow log`: every run there is a trace of, newest first, with what was changed, what came of it, and who did which stage.

Three things know of runs. Git has the commits, DVC the experiments; each holds params.yaml and dvc.lock. The history of this
computer (:mod:`pipeline.history`) has the runs of stages with their times, also of results that were never committed. A run of the
history belongs to the first state that holds what it wrote.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pipeline.history import records
from pipeline.project import Project
from pipeline.runs.groups import Group, grouped
from pipeline.runs.states import Revisions, State
from pipeline.runs.stored import Stored

WAITING = ("queued", "running", "failed")


@dataclass(frozen=True)
class StageRun:
    """``ran``: it was run for this row, or somewhere that left no record. ``of``: the row whose result was used otherwise."""

    ran: bool
    seconds: float | None = None
    of: str | None = None


@dataclass
class Row:
    """One run.

    Attributes:
        changed: options that differ from those of ``against``, each with the value there and here (``None``: not written).
        digests: SHA-256 of each artifact by its manifest; ``None`` where neither DVC's cache nor the history has it.
        metrics: data/eval/metrics.json.
    """

    state: State
    against: str | None
    changed: dict[str, tuple[Any, Any]]
    digests: dict[str, str | None]
    metrics: dict[str, Any] | None
    stages: dict[str, StageRun] = field(default_factory=dict)

    @property
    def seconds(self) -> float | None:
        """Of the stages that ran, as far as they left a record."""
        known = [run.seconds for run in self.stages.values() if run.seconds is not None]
        return sum(known) if known else None


@dataclass(frozen=True)
class Log:
    """``notes``: what the rows cannot say."""

    rows: list[Row]
    notes: list[str]


def collect(project: Project, stages: Sequence[str], count: int) -> Log:
    """The newest ``count`` runs. ``stages``: names in the order in which they run."""
    revisions, stored = Revisions(project), Stored(project)
    commits = revisions.commits(count)
    states = [*commits, *revisions.experiments()]
    head = revisions.at(revisions.head) if revisions.head is not None else None
    workspace = revisions.workspace()
    if workspace.params and (head is None or (workspace.params, workspace.outputs) != (head.params, head.outputs)):
        states.append(workspace)
    # What nobody holds and is older than the oldest commit that is looked at belongs to commits that are not.
    since = _moment(commits[-1]) if len(commits) == count else datetime.min.replace(tzinfo=UTC)
    groups = grouped(records(project), stages)
    log = _Assembly(revisions, stored, groups, stages)
    rows = log.rows(states, since)
    notes = [] if revisions.has_git else ["This is no git repository: commits and experiments cannot be known, runs on this computer are."]
    return Log(rows[:count], notes)


class _Assembly:
    """Joins states and groups of records."""

    def __init__(self, revisions: Revisions, stored: Stored, groups: Sequence[Group], stages: Sequence[str]) -> None:
        self._revisions, self._stored, self._groups, self._order = revisions, stored, groups, stages
        self._makers: dict[tuple[str, str], str] = {}  # row that made an artifact of this digest

    def rows(self, states: Sequence[State], since: datetime) -> list[Row]:
        ordered = sorted(states, key=_moment)
        digests = [{name: self._stored.digest(value) for name, value in state.outputs.items()} for state in ordered]
        owners = [self._owner(group, ordered, digests) for group in self._groups]
        rows = [
            self._row(state, known, [group for group, owner in zip(self._groups, owners, strict=True) if owner == number])
            for number, (state, known) in enumerate(zip(ordered, digests, strict=True))
        ]
        rows += self._alone([group for group, owner in zip(self._groups, owners, strict=True) if owner is None and group.when > since])
        for row in rows:
            self._makers |= {(name, row.digests[name] or ""): row.state.name for name in _ran(row) if row.digests.get(name)}
        for row in rows:
            self._name_makers(row)
        return sorted(rows, key=lambda row: _moment(row.state), reverse=True)

    def _owner(self, group: Group, states: Sequence[State], digests: Sequence[Mapping[str, str | None]]) -> int | None:
        """The first state that holds what the group wrote: the experiment of that name, if it is one."""
        holding = [number for number, known in enumerate(digests) if group.outputs and group.outputs.items() <= known.items()]
        named = [number for number in holding if group.experiment is not None and states[number].name == group.experiment]
        return next(iter([*named, *holding]), None)

    def _row(self, state: State, digests: Mapping[str, str | None], groups: Sequence[Group]) -> Row:
        before = self._revisions.at(state.before) if state.before is not None else None
        changed = _changes(before.params, state.params) if before is not None else {}
        metrics = self._stored.json(state.outputs["eval"], "metrics.json") if "eval" in state.outputs else None
        against = None if before is None else before.name
        if before is None and state.revision is None and groups:
            against, changed = self._since_group_before(groups[0])
        row = Row(state, against, changed, dict(digests), metrics)
        if state.kind in WAITING:
            return row
        found = [record for group in groups for record in group.records]
        for stage in self._order:
            own = [record for record in found if record.stage == stage]
            names = state.stages.get(stage, ())
            if own:
                row.stages[stage] = StageRun(True, sum(record.seconds for record in own))
            elif names:
                is_same = before is not None and all(before.outputs.get(name) == state.outputs[name] for name in names)
                row.stages[stage] = StageRun(False, of=before.name) if is_same and before is not None else StageRun(True)
        return row

    def _name_makers(self, row: Row) -> None:
        """Say of a stage without a record here which row's run made what it would have written."""
        for stage, run in row.stages.items():
            made = {self._makers.get((name, row.digests.get(name) or "")) for name in row.state.stages.get(stage, ())}
            maker = next(iter(made)) if len(made) == 1 else None
            if run.seconds is None and maker is not None and maker != row.state.name:
                row.stages[stage] = StageRun(False, of=maker)

    def _alone(self, groups: Sequence[Group]) -> list[Row]:
        """Rows of runs whose results no commit and no experiment holds (any more)."""
        rows = []
        for group in groups:
            name = group.experiment or "not committed"
            state = State("run", name, None, None, group.when, params=group.params, stages=group.stages)
            row = Row(state, *self._since_group_before(group), dict(group.artifacts), group.metrics)
            for stage in self._order:
                if own := [record.seconds for record in group.records if record.stage == stage]:
                    row.stages[stage] = StageRun(True, sum(own))
            rows.append(row)
        return rows

    def _since_group_before(self, group: Group) -> tuple[str | None, dict[str, tuple[Any, Any]]]:
        """What a run is compared with that no commit precedes, and what was changed since."""
        before = next((other for other in reversed(self._groups) if other.when < group.when), None)
        return (None, {}) if before is None else ("the run before", _changes(before.params, group.params))


def _ran(row: Row) -> list[str]:
    """Artifacts that the row's own recorded runs wrote."""
    return [name for stage, run in row.stages.items() if run.ran and run.seconds is not None for name in row.state.stages.get(stage, ())]


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    names = [*new, *(name for name in old if name not in new)]
    return {name: (old.get(name), new.get(name)) for name in names if (name in old) != (name in new) or old.get(name) != new.get(name)}


def _moment(state: State) -> datetime:
    return state.when or datetime.min.replace(tzinfo=UTC)

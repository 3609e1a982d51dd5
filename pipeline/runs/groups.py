"""Stages that ran one after another with the same params.yaml, from the history of this computer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pipeline.history import Record


@dataclass
class Group:
    """Records of one pass through the pipeline, oldest first; a stage that was stopped and continued is there twice."""

    records: list[Record]

    @property
    def experiment(self) -> str | None:
        found: str | None = self.records[0].facts.get("experiment")
        return found

    @property
    def params(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.records[0].facts.get("params", {})
        return found

    @property
    def when(self) -> datetime:
        return datetime.fromisoformat(self.records[-1].when)

    @property
    def outputs(self) -> dict[str, str]:
        """Digests of what it wrote."""
        return {name: digest for record in self.records for name, digest in record.outputs.items()}

    @property
    def artifacts(self) -> dict[str, str]:
        """Digests of what it wrote and of what it read."""
        read = {name: digest for record in self.records for name, digest in record.facts.get("inputs", {}).items()}
        return read | self.outputs

    @property
    def stages(self) -> dict[str, tuple[str, ...]]:
        return {record.stage: tuple(record.outputs) for record in self.records if record.done}

    @property
    def metrics(self) -> dict[str, Any] | None:
        """What eval reported."""
        found = [record.facts.get("metrics") for record in self.records if record.stage == "eval" and record.done]
        return found[-1] if found else None


def grouped(records: Sequence[Record], stages: Sequence[str]) -> list[Group]:
    """Passes through the pipeline: same params.yaml and experiment, each stage once and after those before it."""
    order = {name: number for number, name in enumerate(stages)}
    groups: list[Group] = []
    for record in records:
        if record.stage not in order:
            continue
        open_group = next((group for group in reversed(groups) if _key(group.records[0]) == _key(record)), None)
        if open_group is not None and _continues(open_group.records[-1], record, order):
            open_group.records.append(record)
        else:
            groups.append(Group([record]))
    return groups


def _key(record: Record) -> tuple[Any, ...]:
    return record.facts.get("experiment"), record.facts.get("params")


def _continues(last: Record, record: Record, order: Mapping[str, int]) -> bool:
    if last.stage == record.stage:
        return not last.done and last.identity == record.identity
    return order[last.stage] < order[record.stage]

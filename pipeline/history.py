"""Which stages ran here, when, and how long they took: ``data/metrics/runs.jsonl``, one JSON object a line, only ever appended to.

It is knowledge about executions: in no artifact, in no lock file, git-ignored, and nothing depends on it. Fields of a line:

* ``stage``, ``identity``: the stage and the SHA-256 (hex) of all that decided its output. Equal identities did equal work.
* ``ended``: ``done``, or ``stopped`` (it was asked to stop and saved its work; ``seconds`` are those until then).
* ``when``: the end, UTC, ISO 8601. ``seconds``, ``cpu_seconds``: of that process alone, wall and CPU.
* ``outputs``: digest of each artifact it wrote; empty if it stopped. ``inputs``: of each that it read.
* ``metrics``: the counts the stage reports (rows, tokens, steps). ``peak_memory_mb``, ``threads``, ``platform`` and whatever else
  the record of the stage's last run (``data/metrics/<stage>.json``) has.
* ``params``: params.yaml as written, by dotted option. ``commit``: git's HEAD then. ``experiment``: DVC's name for it. ``null`` without.

An experiment that DVC runs in a workspace of its own writes to the project that it was started in: the workspace is thrown away.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.options.reading.source import parse
from pipeline.options.schema import facts_of
from pipeline.options.views import RecipeOptions
from pipeline.project import Project


@dataclass(frozen=True)
class Record:
    """One run of one stage. ``facts`` is its whole line."""

    stage: str
    identity: str
    done: bool
    when: str
    seconds: float
    outputs: Mapping[str, str]
    facts: Mapping[str, Any]


def history_file(project: Project) -> Path:
    """Where the lines are."""
    return project.home.data / "metrics" / "runs.jsonl"


def record(project: Project, stage: str, facts: Mapping[str, Any]) -> None:
    """Append a line. Whole or not at all for whoever reads it, whatever else writes, and wherever a kill strikes."""
    moment = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    known = {"stage": stage, "when": moment, "experiment": os.environ.get("DVC_EXP_NAME"), "commit": _head(project), **facts}
    text = json.dumps(known, sort_keys=True, ensure_ascii=False, default=str)
    path = history_file(project)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)  # released when the file is closed, and when the process dies
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - 1))
        begun = b"\n" if size and stream.read(1) != b"\n" else b""  # a line that a kill cut short is left behind
        stream.write(begun + text.encode("utf-8", "replace") + b"\n")
        stream.flush()


def records(project: Project) -> list[Record]:
    """All runs of stages, oldest first. A line that a kill cut short is left out."""
    try:
        lines = history_file(project).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    return list(_parsed(lines))


def written_params(text: str) -> dict[str, Any]:
    """The options of a params.yaml as written, by dotted name: ``datasets[0].path``. Secrets are not shown.

    Raises:
        RegrowError: the text is no YAML mapping.
    """
    values = parse(text, "params.yaml").value
    fields = RecipeOptions.model_fields
    secret = {name for name in values if name in fields and facts_of(fields[name]).secret}
    return dict(_flattened("", values | dict.fromkeys(secret, "(not shown)")))


def _flattened(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _flattened(f"{name}.{key}" if name else str(key), item)
    elif isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        for number, item in enumerate(value):
            yield from _flattened(f"{name}[{number}]", item)
    elif name:
        yield name, value


def _parsed(lines: list[bytes]) -> Iterator[Record]:
    for line in lines:
        try:
            facts = json.loads(line)
            done = facts["ended"] == "done"
            outputs = facts.get("outputs", {})
            yield Record(facts["stage"], facts["identity"], done, facts["when"], float(facts["seconds"]), outputs, facts)
        except (ValueError, KeyError, TypeError):
            continue


def _head(project: Project) -> str | None:
    """The commit that the stage ran on: that of the experiment, or the one that is checked out."""
    if baseline := os.environ.get("DVC_EXP_BASELINE_REV"):
        return baseline
    try:
        asked = subprocess.run(
            ["git", "rev-parse", "--verify", "--quiet", "HEAD"], cwd=project.root, capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return asked.stdout.strip() or None

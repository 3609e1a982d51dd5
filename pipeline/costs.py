"""`regrow report`: a copy of data/eval/report.html that also says what each stage cost.

Times and memory differ from run to run, so they are in no artifact: they come from the records under data/metrics, here, when asked for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from pipeline.artifact import open_artifact
from pipeline.errors import RegrowError
from pipeline.project import Project

_PLACE = "<!-- costs -->"
_HEADS = ("stage", "time", "CPU time", "peak memory, MB", "GPU memory, MB", "tokens", "tokens per second", "written, MB", "where")


def write_report(project: Project, target: Path, stages: Sequence[str]) -> None:
    """Write the report with the costs of ``stages``, in this order.

    Raises:
        RegrowError: there is no report yet.
    """
    source = project.data / "eval" / "report.html"
    try:
        page = source.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RegrowError(f"{source} is not there.", "Run `dvc repro` first: its last stage writes the report.") from None
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(page.replace(_PLACE, costs_table(project, stages)), encoding="utf-8", newline="\n")


def costs_table(project: Project, stages: Sequence[str]) -> Markup:
    """A section of the report: one row for each stage that has a record."""
    records = {name: _read(project.data / "metrics" / f"{name}.json") for name in stages}
    known = {name: record for name, record in records.items() if record is not None}
    rows = [_row([name, *_cells(project, record)]) for name, record in known.items()]
    total = sum(record["seconds"] for record in known.values()), sum(record["cpu_seconds"] for record in known.values())
    rows.append(_row(["together", _duration(total[0]), _duration(total[1]), *[""] * (len(_HEADS) - 3)]))
    heads = Markup("").join(Markup('<th scope="col">{}</th>').format(head) for head in _HEADS)
    return Markup(
        '<h2>Costs</h2>\n<p class="soft">What the last run of each stage took, from the records in data/metrics. These numbers are of that '
        'computer and that run.</p>\n<div class="scroll" tabindex="0" role="region" aria-label="Costs">\n<table>\n'
        "<thead><tr>{}</tr></thead>\n<tbody>\n{}\n</tbody>\n</table>\n</div>\n"
    ).format(heads, Markup("\n").join(rows))


def _read(path: Path) -> dict[str, Any] | None:
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        raise RegrowError(f"{path} is not what a stage writes.", "Remove it; the stage's next run writes it anew.") from None
    return record


def _cells(project: Project, record: Mapping[str, Any]) -> list[str]:
    tokens, speed = record["metrics"].get("tokens"), record.get("tokens_per_second")
    if speed is None and isinstance(tokens, int) and record["seconds"]:
        speed = tokens / record["seconds"]
    written = [_written(project, name, digest) for name, digest in record["outputs"].items()]
    stale = "" if all(size is not None for size in written) else " (another run's: its output is not what is there now)"
    return [
        _duration(record["seconds"]),
        _duration(record["cpu_seconds"]),
        _count(record["peak_memory_mb"]),
        _count(record.get("peak_gpu_memory_mb")),
        _count(tokens),
        _count(speed),
        "" if stale else f"{sum(size or 0 for size in written) / 1e6:,.1f}",
        f"{record['platform']}, {record['threads']} threads{stale}",
    ]


def _written(project: Project, name: str, digest: str) -> int | None:
    """Bytes of an output's files; None where what is there is not the record's."""
    try:
        artifact = open_artifact(project.data / name, verify=False)
    except RegrowError:
        return None
    return sum(int(facts["size"]) for facts in artifact.files.values()) if artifact.digest == digest else None


def _duration(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest:.0f} s" if minutes else f"{rest:.1f} s"


def _count(value: float | None) -> str:
    return f"{value:,.0f}" if isinstance(value, (int, float)) else ""


def _row(cells: Sequence[str]) -> Markup:
    first, *others = cells
    *numbers, last = others
    middle = Markup("").join(Markup('<td class="number">{}</td>').format(cell) for cell in numbers)
    return Markup('<tr><th scope="row">{}</th>{}<td>{}</td></tr>').format(first, middle, last)

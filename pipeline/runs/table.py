"""The runs as a table for people, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.runs import WAITING, Log, Row

_DIGESTS = ("trained", "merged", "eval")
_METRICS = ("accuracy", "loss", "exact_match", "perplexity", "reward")
_MOST_CHANGES = 8


def log_json(log: Log) -> str:
    """Rows with everything that is known of them."""
    return json.dumps({"runs": [_facts(row) for row in log.rows], "notes": log.notes}, indent=2, ensure_ascii=False, default=str)


def _facts(row: Row) -> dict[str, Any]:
    state = row.state
    return {
        "kind": state.kind,
        "name": state.name,
        "commit": state.revision,
        "subject": state.subject,
        "when": None if state.when is None else state.when.isoformat(timespec="seconds"),
        "against": row.against,
        "changed": {name: {"old": old, "new": new} for name, (old, new) in row.changed.items()},
        "digests": row.digests,
        "md5": dict(state.outputs),
        "metrics": row.metrics,
        "seconds": row.seconds,
        "stages": {name: {"ran": run.ran, "seconds": run.seconds, "of": run.of} for name, run in row.stages.items()},
    }


def print_log(log: Log) -> None:
    """The table; in a log file it is as wide as it needs to be."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    console = console if console.is_terminal else Console(highlight=False, markup=False, width=1000)
    for note in log.notes:
        console.print(note)
    if not log.rows:
        console.print("No run yet: `dvc repro` makes the first.")
        return
    table = Table("run", "when", "changed", *_DIGESTS, "metrics", "time", "ran", "reused", box=box.SIMPLE_HEAD)
    for row in log.rows:
        table.add_row(*_cells(row))
    console.print(table)
    if any("md5 " in cell for row in log.rows for cell in _cells(row)):
        console.print("md5: the artifact is not in DVC's cache (`dvc pull`), so this is what dvc.lock has for its folder.")


def _cells(row: Row) -> list[str]:
    state = row.state
    when = "" if state.when is None else state.when.astimezone().strftime("%Y-%m-%d %H:%M")
    digests = [_digest(row, name) for name in _DIGESTS]
    time = "" if row.seconds is None else _duration(row.seconds)
    return [_name(row), when, _changed(row), *digests, _metrics(row.metrics), time, _ran(row), _reused(row)]


def _name(row: Row) -> str:
    state = row.state
    if state.kind == "commit":
        return f"{state.name} {state.subject[:30]}".strip()
    told = {"experiment": f"experiment on {row.against}", "workspace": "as the files are"}.get(state.kind, "")
    told = f"{state.kind}, on {row.against}" if state.kind in WAITING else told
    return f"{state.name} ({told})" if told else state.name


def _changed(row: Row) -> str:
    lines = [f"{name}: {_value(old)} -> {_value(new)}" for name, (old, new) in row.changed.items()]
    more = [f"and {len(lines) - _MOST_CHANGES} more"] if len(lines) > _MOST_CHANGES else []
    return "\n".join([*lines[:_MOST_CHANGES], *more]) if row.against is not None else "(first)"


def _value(value: Any) -> str:
    text = "default" if value is None else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _digest(row: Row, name: str) -> str:
    digest, stored = row.digests.get(name), row.state.outputs.get(name)
    return digest[:8] if digest else f"md5 {stored[:8]}" if stored and row.state.kind not in WAITING else ""


def _metrics(metrics: Mapping[str, Any] | None) -> str:
    """Of the fine-tuned model, and of the base model where there is no other."""
    found = metrics or {}
    judged: Mapping[str, Any] = next((found[name] for name in ("merged", "base") if isinstance(found.get(name), dict)), {})
    known = {name: judged[name] for name in _METRICS if isinstance(judged.get(name), (int, float))}
    return "\n".join(f"{name} {value:.4g}" for name, value in list(known.items())[:2])


def _ran(row: Row) -> str:
    if not row.stages and row.state.kind not in WAITING:
        return "not run"
    return _span([name for name, run in row.stages.items() if run.ran], list(row.stages))


def _reused(row: Row) -> str:
    sources = dict.fromkeys(run.of for run in row.stages.values() if not run.ran)
    spans = [(_span([name for name, run in row.stages.items() if not run.ran and run.of == of], list(row.stages)), of) for of in sources]
    return "\n".join(f"{span} of {of}" if of else span for span, of in spans)


def _span(names: Sequence[str], order: Sequence[str]) -> str:
    """``fetch-pack, merge``: three or more stages that follow each other are shown by the first and the last."""
    parts: list[list[str]] = []
    for name in names:
        if parts and order.index(name) == order.index(parts[-1][-1]) + 1:
            parts[-1].append(name)
        else:
            parts.append([name])
    return ", ".join(f"{part[0]}-{part[-1]}" if len(part) > 2 else ", ".join(part) for part in parts)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest:.0f} s" if minutes else f"{rest:.1f} s"

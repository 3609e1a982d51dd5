"""A plan as text for people, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.planning.expected import Expected
from pipeline.planning.verdicts import Planned, Verdict

WORK = 3
"""Exit code of `regrow plan` where there is work: not 1 or 2, which mean that something went wrong."""


def exit_code(planned: Sequence[Planned]) -> int:
    """0 if `dvc repro` would change nothing."""
    return 0 if all(entry.verdict is Verdict.nothing for entry in planned) else WORK


def as_text(planned: Sequence[Planned], expected: Mapping[str, Expected], training: Sequence[str]) -> Iterator[str]:
    """One paragraph for each stage that has something to do, and how much it is in all."""
    idle = [entry.stage.name for entry in planned if entry.verdict is Verdict.nothing]
    if len(idle) == len(planned):
        yield "Nothing to do: options, code, libraries and data are those of the last run."
        return
    if idle:
        yield f"Nothing to do in {', '.join(idle)}."
    for entry in planned:
        if entry.verdict is not Verdict.nothing:
            yield from _paragraph(entry, expected.get(entry.stage.name), training if entry.stage.name == "train" else ())
    yield _sum(planned, expected)


def _paragraph(entry: Planned, expected: Expected | None, training: Sequence[str]) -> Iterator[str]:
    yield f"{entry.stage.name}: {_headline(entry)}"
    yield from (f"    {reason}" for reason in entry.reasons)
    if entry.verdict is Verdict.runs and entry.waits_for:
        yield f"    before, {_few(entry.waits_for)} may change"
    if entry.refused is not None:
        yield from (f"    it would be refused: {entry.refused}").splitlines()
    yield from (f"    {line}" for line in training)
    if expected is not None:
        yield f"    {_cost(expected, in_full=bool(training))}"


def _headline(entry: Planned) -> str:
    if entry.verdict is not Verdict.waits:
        return entry.verdict.value
    repaired = ", else from cache" if entry.reasons else ""
    return f"runs if {_few(entry.waits_for)} changes{repaired}"


def _few(paths: Sequence[str]) -> str:
    names = list(paths) if len(paths) <= 3 else [*paths[:2], f"{len(paths) - 2} more"]
    return " or ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]


_COUNTED = {"rows": "rows", "steps": "steps", "tokens": "tokens", "trained_tokens": "of them trained"}


def _cost(expected: Expected, *, in_full: bool) -> str:
    counts = ", ".join(f"{expected.counts[key]:,} {unit}" for key, unit in _COUNTED.items() if key in expected.counts)
    if counts and not expected.is_exact:
        counts = f"like the last time {counts}"
    parts = [counts] if counts and not in_full else []
    parts.append("time unknown: no such run here yet" if expected.seconds is None else f"about {duration(expected.seconds)}")
    if expected.memory_mb is not None:
        parts.append(f"{memory(expected.memory_mb)} of memory")
    if expected.gpu_memory_mb is not None:
        parts.append(f"{memory(expected.gpu_memory_mb)} on the GPU")
    return "; ".join(parts)


def _sum(planned: Sequence[Planned], expected: Mapping[str, Expected]) -> str:
    counts = {verdict: sum(entry.verdict is verdict for entry in planned) for verdict in Verdict}
    parts = {"to run": counts[Verdict.runs], "that may have to": counts[Verdict.waits], "from cache": counts[Verdict.cached]}
    told = ", ".join(f"{count} {what}" for what, count in parts.items() if count)
    known = [entry.seconds for entry in expected.values() if entry.seconds is not None]
    if not known:
        return f"Stages: {told}."
    bound = "more than" if len(known) < len(expected) else "about"
    peak = max((entry.memory_mb for entry in expected.values() if entry.memory_mb is not None), default=None)
    return f"Stages: {told}. Together {bound} {duration(sum(known))}{'' if peak is None else f', with up to {memory(peak)} of memory'}."


def duration(seconds: float) -> str:
    """For people; never more exact than a guess is."""
    if seconds < 1.5:
        return "1 s"
    minutes, hours = seconds / 60, seconds / 3600
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if hours < 2 else f"{hours:.1f} h"


def memory(megabytes: int) -> str:
    """For people."""
    return f"{megabytes / 1024:.1f} GB" if megabytes >= 1024 else f"{megabytes} MB"


def as_json(planned: Sequence[Planned], expected: Mapping[str, Expected]) -> str:
    """The same for programs."""
    known = [entry.seconds for entry in expected.values() if entry.seconds is not None]
    document = {
        "work": exit_code(planned) == WORK,
        "seconds": round(sum(known), 1) if known else None,
        "stages": [_record(entry, expected.get(entry.stage.name)) for entry in planned],
    }
    return json.dumps(document, indent=2, ensure_ascii=False)


def _record(entry: Planned, expected: Expected | None) -> dict[str, Any]:
    reasons = [{"kind": r.kind, "name": r.name, "old": r.old, "new": r.new, "text": str(r)} for r in entry.reasons]
    record: dict[str, Any] = {"stage": entry.stage.name, "verdict": entry.verdict.value, "reasons": reasons}
    record |= {"waits_for": list(entry.waits_for), "refused": entry.refused}
    if expected is not None:
        seconds = None if expected.seconds is None else round(expected.seconds, 1)
        record["expected"] = {"counts": dict(expected.counts), "exact": expected.is_exact, "seconds": seconds}
        record["expected"] |= {"memory_mb": expected.memory_mb, "gpu_memory_mb": expected.gpu_memory_mb}
    return record

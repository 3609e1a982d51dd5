"""What became of a source row, stage by stage."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np

from pipeline.errors import RegrowError
from pipeline.inspection.opened import label, names_of
from pipeline.left_out import LeftOut
from pipeline.lineage.opened import SPLITS, Lineage
from pipeline.lineage.raw import RawRows

Record = dict[str, Any]

MOST_STEPS = 1000
"""Of one bin that are listed; a run may have a million."""


def trace_row(lineage: Lineage, text: str) -> Record:
    """What became of the row that ``text`` names, as ``SOURCE:ROW``: a source's slot, path or file, and the row's number there.

    ``source``, ``path``, ``file``, ``row``, and for ``tokenize``, ``dedupe``, ``pack`` and ``train`` as far as the row came: an
    ``outcome`` in one word or two, the ``reason`` of a negative one, and what else is known.

    Raises:
        RegrowError: no source or several are meant, or the row is no number.
    """
    source, row = _parse(lineage, text)
    facts = lineage.tokens.sources[source]
    record: Record = {"source": facts["name"], "path": facts["path"], "file": facts["file"], "row": row}
    numbers = lineage.numbers_of(source, row)
    if not len(numbers):
        return record | {"tokenize": _not_tokenized(lineage, source, row)}
    number, table = int(numbers[0]), lineage.tokens.table
    tokens = int(table.lengths[number]) + (len(table.rejected_ids(number)) if table.paired else 0)
    record["tokenize"] = {"outcome": "tokenized", "number": number, "tokens": tokens, "trained_tokens": _trained(lineage, number)}
    record["dedupe"] = _deduplicated(lineage, number)
    if record["dedupe"]["outcome"] == "kept":
        record["pack"] = _packed(lineage, number)
        if any(place["split"] == "train" for place in record["pack"].get("places", ())):
            record["train"] = _stepped(lineage, record["pack"]["places"])
    return record


def _parse(lineage: Lineage, text: str) -> tuple[int, int]:
    """Number of the source, and the row."""
    name, colon, row = text.rpartition(":")
    if not colon or not row.isdecimal():
        raise RegrowError(f"{text!r} names no row.", "Write SOURCE:ROW, such as train-00:17; rows of a file are counted from 0.")
    sources = lineage.tokens.sources
    found = [number for number, facts in enumerate(sources) if name in names_of(facts)]
    found = found or [number for number, facts in enumerate(sources) if name == f"{facts['name']}/{facts['file']}"]
    if len(found) > 1:
        found = _with_row(lineage, found, int(row)) or found
    if len(found) == 1:
        return found[0], int(row)
    candidates = [sources[number] for number in found] or sources
    listed = "; ".join(dict.fromkeys(f"{facts['name']}/{facts['file']}:{row}" for facts in candidates))
    if not found:
        raise RegrowError(
            f"{lineage.tokens.artifact.path} has no source {name!r}.", f"It has {'; '.join(dict.fromkeys(map(label, sources)))}."
        )
    raise RegrowError(f"{name!r} is {len(found)} files with a row {row}.", f"Write one of {listed}.")


def _with_row(lineage: Lineage, sources: Sequence[int], row: int) -> list[int]:
    """Of several files of one name, those that have such a row at all, where there is just one."""
    having = [number for number in sources if len(lineage.numbers_of(number, row)) or _reason(lineage, number, row) is not None]
    return having if len(having) == 1 else []


def _trained(lineage: Lineage, number: int) -> int:
    """Trained tokens, of both answers where there are two."""
    table = lineage.tokens.table
    masks = [table.mask(number), *([table.rejected_mask(number)] if table.paired else [])]
    return sum(int(np.count_nonzero(mask)) for mask in masks)


def _reason(lineage: Lineage, source: int, row: int) -> str | None:
    """Why tokenize left a row out, by its own list."""
    facts, path = lineage.tokens.sources[source], lineage.tokens.artifact.path / "rejected.jsonl"
    if not path.is_file():
        return None
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            found = json.loads(line)
            if (found["source"], found["file"], found["row"]) == (facts["name"], facts["file"], row):
                return str(found["reason"])
    return None


def _not_tokenized(lineage: Lineage, source: int, row: int) -> Record:
    reason = _reason(lineage, source, row)
    if reason is not None:
        return {"outcome": "left out", "reason": reason}
    raw = lineage.artifact("raw")
    why = f"no such row is known; {lineage.problem('raw')}" if raw is None else RawRows(raw).why_absent(source, row)
    return {"outcome": "not there", "reason": why}


def _deduplicated(lineage: Lineage, number: int) -> Record:
    if problem := lineage.problem("dedupe"):
        return {"outcome": "unknown", "reason": problem}
    kept = lineage.kept
    if kept.keep[number]:
        same = np.flatnonzero(kept.duplicate_of == number)
        return {"outcome": "kept", "duplicates": [lineage.name_row(int(other)) for other in same]}
    record: Record = {"outcome": "removed", "reason": kept.reason[number]}
    other, similarity = int(kept.duplicate_of[number]), float(kept.similarity[number])
    if other >= 0:
        record["duplicate_of"] = lineage.name_row(other)
    return record if np.isnan(similarity) else record | {"similarity": round(similarity, 6)}


def _packed(lineage: Lineage, number: int) -> Record:
    if problem := lineage.problem("packed"):
        return {"outcome": "unknown", "reason": problem}
    places = [place for split in SPLITS for place in _places(lineage, split, number)]
    length = int(lineage.tokens.table.longest[number])
    if not places:
        return {"outcome": "left out", "reason": _why_left_out(lineage, number) or "data/packed does not say why; run `regrow pack`"}
    held_out = {place["split"] for place in places} == {"eval"}
    record: Record = {"outcome": "held out" if held_out else "packed", "places": places}
    missing = length - len(set().union(*(range(*place["tokens"]) for place in places)))
    if missing:
        record |= {"tokens_left_out": missing, "reason": _why_left_out(lineage, number) or "cut to the length that options allow"}
    return record


def _places(lineage: Lineage, split: str, number: int) -> list[Record]:
    """Where spans of a row stand: bin, tokens of the bin from and to, tokens of the row from and to."""
    bins = lineage.bins[split]
    found = []
    for span in np.flatnonzero(bins.row == number).tolist():
        at = int(np.searchsorted(bins.offsets, span, "right")) - 1
        first = int(bins.length[bins.offsets[at] : span].sum())
        start, length = int(bins.start[span]), int(bins.length[span])
        found.append({"split": split, "bin": at, "bin_tokens": [first, first + length], "tokens": [start, start + length]})
    return found


def _why_left_out(lineage: Lineage, number: int) -> str | None:
    """What pack wrote down of a row; nothing where it cut the row's end off."""
    path = lineage.require("packed").path / "left_out.arrow"
    return LeftOut.load(path).why(number) if path.is_file() else None


def _stepped(lineage: Lineage, places: Sequence[Record]) -> Record:
    """The optimizer steps that saw a row, epoch by epoch."""
    if problem := lineage.problem("trained"):
        return {"outcome": "unknown", "reason": problem}
    order = lineage.order
    numbers = sorted({place["bin"] for place in places if place["split"] == "train"})
    seen = sorted(pair for number in numbers for pair in islice(order.steps_of(number), MOST_STEPS))
    steps = [{"epoch": epoch, "step": step} for epoch, step in seen]
    reason = f"the run ended after step {order.steps}, before the row's turn"
    return {"outcome": "trained", "steps": steps} if steps else {"outcome": "not reached", "reason": reason}


def trace_step(lineage: Lineage, step: int) -> Record:
    """The bins that an optimizer step took, each with the rows in it, and the line of log.csv that covers the step.

    Raises:
        RegrowError: there is no such step.
    """
    bins = lineage.bins["train"]
    taken = lineage.order.bins_of(step)
    epoch = (step - 1) // lineage.order.steps_per_epoch
    found = [{"bin": int(number), "rows": [_row_of(lineage, *span) for span in bins.spans(int(number))]} for number in taken]
    return {"step": step, "epoch": epoch, "bins": found, "logged": _logged(lineage, step)}


def _row_of(lineage: Lineage, row: int, start: int, length: int) -> Record:
    return lineage.name_row(row) | {"tokens": [start, start + length]}


def _logged(lineage: Lineage, step: int) -> dict[str, str] | None:
    """The first line of log.csv at or after a step."""
    path = lineage.require("trained").path / "log.csv"
    header, *lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else [""]
    found = (dict(zip(header.split(","), line.split(","), strict=True)) for line in lines)
    return next((line for line in found if line.get("step", "").isdecimal() and int(line["step"]) >= step), None)

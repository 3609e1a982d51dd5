"""Traces for people: the text of rows with the trained part standing out, and what became of a row, line by line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pipeline.inspection.characters import Segment, visible
from pipeline.inspection.rows import Screen

Record = Mapping[str, Any]


def show_spans(split: str, number: int, spans: Iterable[Record]) -> None:
    """Print spans of a bin as :func:`pipeline.lineage.spans.trace_bin` yields them."""
    screen = Screen()
    for span in spans:
        where = f"bin {number} of {split}, tokens {_range(span['bin_tokens'])} · {_place(span)}"
        screen.put(where, _segments(span), _facts(span))
        if "rejected" in span:
            screen.put(f"{where} · rejected", _segments(span["rejected"]), _facts(span["rejected"]))
        if "token" in span:
            screen.lines(_token(span["token"]))


def _segments(span: Record) -> list[Segment]:
    return [Segment(**part) for part in span["parts"]]


def _place(row: Record) -> str:
    return f"{row['source']} {row['file']}, row {row['row']}"


def _facts(span: Record) -> list[str]:
    tokens = f"tokens {_range(span['tokens'])} of {span['row_tokens']}, {span['trained']} trained"
    lines = [f"{tokens} · characters {_range(span['characters'])} of {span['row_characters']}"]
    if span.get("path") not in (None, span.get("file")):
        lines.append(f"source {span['path']}")
    lines += [f"{_field(item)} are characters {_range(item['characters'])}" for item in span["fields"]]
    if "fields_unknown" in span:
        lines.append(f"fields unknown: {span['fields_unknown']}")
    return lines


def _range(pair: Sequence[int]) -> str:
    """From and to, both inclusive, as people count."""
    if pair[1] <= pair[0]:
        return "none"
    return f"{pair[0]} to {pair[1] - 1}" if pair[1] > pair[0] + 1 else f"{pair[0]}"


def _token(token: Record) -> Iterator[str]:
    kind = "trained" if token["trained"] else "masked"
    text = f"{visible(token['text'])!r}, characters {_range(token['characters'])}"
    yield f"token {token['row_position']} of the row: id {token['id']}, {kind}: {text}"
    for item in token["fields"]:
        yield f"    {_field(item)}"


def _field(item: Record) -> str:
    return f"{item['field']} [{item['field_characters'][0]}:{item['field_characters'][1]}]"


def fate_lines(record: Record) -> Iterator[str]:
    """What :func:`pipeline.lineage.fates.trace_row` found."""
    yield f"{_place(record)} · {record['path']}"
    for stage in ("tokenize", "dedupe", "pack", "train"):
        if stage in record:
            found = record[stage]
            yield f"{stage:9} {found['outcome']}{_detail(found)}"
            yield from (f"          {line}" for line in _more(found))


def _detail(found: Record) -> str:
    parts = []
    if "tokens" in found:
        parts.append(f"row {found['number']} of data/tokens, {found['tokens']} tokens, {found['trained_tokens']} trained")
    if found.get("reason"):
        parts.append(str(found["reason"]))
    if "similarity" in found:
        parts.append(f"similarity {found['similarity']:g}")
    if "tokens_left_out" in found:
        parts.append(f"{found['tokens_left_out']} tokens left out")
    return f": {'; '.join(parts)}" if parts else ""


def _more(found: Record) -> Iterator[str]:
    if "duplicate_of" in found:
        yield f"duplicate of {_named(found['duplicate_of'])}"
    yield from _first([f"duplicate: {_named(row)}" for row in found.get("duplicates", ())])
    yield from _first([_where(place) for place in found.get("places", ())])
    yield from _first([f"epoch {item['epoch']}: step {item['step']}" for item in found.get("steps", ())])


_SHOWN = 12


def _first(lines: Sequence[str]) -> Iterator[str]:
    """As many lines as people read."""
    yield from lines[:_SHOWN]
    if len(lines) > _SHOWN:
        yield f"and {len(lines) - _SHOWN} more (--format json has them)"


def _where(place: Record) -> str:
    where = f"bin {place['bin']} of {place['split']}, tokens {_range(place['bin_tokens'])}"
    return f"{where}: tokens {_range(place['tokens'])} of the row"


def _named(row: Record) -> str:
    return f"{_place(row)} (row {row['number']} of data/tokens)"


def step_lines(record: Record) -> Iterator[str]:
    """What :func:`pipeline.lineage.fates.trace_step` found."""
    logged = "".join(f", {name} {record['logged'][name]}" for name in ("loss", "learning_rate") if name in (record["logged"] or {}))
    at = record["logged"] and record["logged"].get("step")
    yield f"step {record['step']}, epoch {record['epoch']}: {len(record['bins'])} bins{f' (logged at step {at}{logged})' if logged else ''}"
    for item in record["bins"]:
        yield f"bin {item['bin']}"
        yield from (f"    {_named(row)}, tokens {_range(row['tokens'])}" for row in item["rows"])

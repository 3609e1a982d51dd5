"""From a bin, or a token of it, back to the rows: source, tokens, characters, fields, text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pipeline.errors import RegrowError
from pipeline.inspection.characters import TokenText
from pipeline.inspection.opened import tokenizer_of
from pipeline.lineage.fields import Place, find_places
from pipeline.lineage.opened import Lineage
from pipeline.lineage.raw import RawRows
from pipeline.lineage.row_text import RowText

Record = dict[str, Any]
"""What is known of a span; see :func:`trace_bin`."""


def trace_bin(lineage: Lineage, split: str, number: int, position: int | None = None) -> Iterator[Record]:
    """Every span of a bin, in order, or the one that holds the token at ``position`` (from 0).

    Each has ``source``, ``path``, ``file``, ``row`` (its number there), ``number`` (row of data/tokens), ``bin_tokens`` (of the
    bin, from and to), ``tokens`` (of the row, from and to), ``row_tokens``, ``trained`` (tokens that are labels),
    ``characters`` (of the row's text, from and to), ``row_characters``, ``text``, ``parts`` (neighbouring characters of one
    kind), ``fields`` (see :func:`_fields`) and, with a position, ``token``. Of two answers, the second is ``rejected``.

    Raises:
        RegrowError: there is no such bin or position.
    """
    bins = lineage.bins[split]
    if not 0 <= number < len(bins):
        raise RegrowError(f"There is no bin {number} in data/packed, split {split}.", _numbers("Bins", len(bins)))
    spans = list(bins.spans(number))
    ends = np.cumsum([length for _, _, length in spans])
    if position is not None and not 0 <= position < ends[-1]:
        raise RegrowError(f"There is no position {position} in bin {number} of {split}.", _numbers("Positions", int(ends[-1])))
    chosen = range(len(spans)) if position is None else [int(np.searchsorted(ends, position, "right"))]
    reader = _Reader(lineage, [spans[at][0] for at in chosen])
    for at in chosen:
        row, start, length = spans[at]
        first = int(ends[at]) - length
        yield reader.record(row, start, length, first, None if position is None else position - first)


def _numbers(what: str, count: int) -> str:
    return f"{what} are 0 to {count - 1}." if count else "It has none."


class _Reader:
    """Reads spans of some rows of the token table."""

    def __init__(self, lineage: Lineage, rows: Sequence[int]) -> None:
        self._lineage, self._table = lineage, lineage.tokens.table
        self._text = TokenText(tokenizer_of(lineage.tokens))
        raw = lineage.artifact("raw")
        self._no_fields = lineage.problem("raw") or self._other_raw(raw)
        self._raw = {} if raw is None or self._no_fields else _raw_rows(lineage, RawRows(raw), rows)

    def _other_raw(self, raw: Any) -> str | None:
        """data/tokens names the data/raw that it was made from."""
        made_from = self._lineage.tokens.artifact.inputs.get("raw", raw.digest)
        return None if made_from == raw.digest else "data/tokens was made from another data/raw than the one there now"

    def record(self, row: int, start: int, length: int, first: int, position: int | None) -> Record:
        table = self._table
        facts = self._lineage.tokens.sources[int(table.source[row])]
        record = self._lineage.name_row(row) | {"path": facts["path"], "bin_tokens": [first, first + length]}
        record |= self._answer(row, table.ids(row), table.mask(row), start, length, position)
        if table.paired:
            record["rejected"] = self._answer(row, table.rejected_ids(row), table.rejected_mask(row), start, length, None)
        if self._no_fields:
            record["fields_unknown"] = self._no_fields
        return record

    def _answer(self, row: int, ids: np.ndarray, mask: np.ndarray, start: int, length: int, position: int | None) -> Record:
        """Of a row, or of one of its two answers."""
        text, end = RowText(self._text, ids), min(start + length, len(ids))
        places = find_places(text.text, list(text.plain_runs()), self._raw.get(row))
        labels = mask[start:end].copy()
        labels[:1] = 0  # nothing before it predicts the first token of a span
        first, last = text.characters(start, end)
        found: Record = {
            "tokens": [start, end],
            "row_tokens": len(ids),
            "trained": int(np.count_nonzero(labels)),
            "characters": [first, last],
            "row_characters": len(text.text),
            "text": text.text[first:last],
            "parts": [vars(part) for part in self._text.segments(ids[start:end], labels, goes_on=start > 0)],
            "fields": _fields(places, first, last),
        }
        if position is not None and start + position < end:
            found["token"] = self._token(text, places, ids, bool(labels[position]), start + position)
        return found

    def _token(self, text: RowText, places: Sequence[Place], ids: np.ndarray, trained: bool, at: int) -> Record:
        first, last = text.characters(at, at + 1)
        names = {"row_position": at, "id": int(ids[at]), "trained": trained, "characters": [first, last]}
        return names | {"text": text.text[first:last], "fields": _fields(places, first, last)}


def _raw_rows(lineage: Lineage, raw: RawRows, numbers: Sequence[int]) -> dict[int, Any]:
    """The source rows of rows of the token table, by number there."""
    table = lineage.tokens.table
    found: dict[int, Any] = {}
    for source in {int(table.source[number]) for number in numbers}:
        own = [number for number in numbers if table.source[number] == source]
        rows = raw.read(source, (int(table.row[number]) for number in own))
        found |= {number: rows[int(table.row[number])] for number in own if int(table.row[number]) in rows}
    return found


def _fields(places: Sequence[Place], start: int, end: int) -> list[Record]:
    """Fields of the source row that occur between two characters of the text.

    ``field`` is its path, ``field_characters`` from and to within the field, ``characters`` from and to within the row's text.
    """
    parts = [part for place in places if (part := place.within(start, end)) is not None]
    return [
        {"field": part.field, "field_characters": [part.start, part.start + part.length], "characters": [part.at, part.end]}
        for part in parts
    ]

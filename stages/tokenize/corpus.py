"""All sources, in config order: read, format, tokenize, write, count."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TextIO

from pipeline.errors import RegrowError
from pipeline.options.datasets import DatasetFormat
from pipeline.options.views import TokenizeOptions
from pipeline.progress import Task
from pipeline.stage import Job, Metrics
from pipeline.tokens import TokenWriter, id_dtype
from stages.tokenize.encode import Encoded, Encoder, as_encoded
from stages.tokenize.example import BadRow, Example, Format, Tokenized
from stages.tokenize.formats import Surroundings, format_of
from stages.tokenize.rows import NumberedRow, read_rows

_BLOCK_ROWS = 1024


@dataclass
class Source:
    """One file of one dataset entry, and what became of its rows."""

    facts: dict[str, Any]
    counts: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    first_rejected: dict[str, int] = field(default_factory=dict)
    longest: int = 0

    @property
    def label(self) -> str:
        return f"{self.facts['path']} ({self.facts['file']})" if self.facts["path"] != self.facts["file"] else str(self.facts["path"])

    def describe(self) -> dict[str, Any]:
        names = ("rows", "tokens", "trained_tokens")
        return (
            self.facts
            | {name: self.counts[name] for name in names}
            | {"longest": self.longest, "rejected": dict(sorted(self.rejected.items()))}
        )


def tokenize_sources(job: Job[TokenizeOptions]) -> Metrics:
    """Write data/tokens from data/raw."""
    draft, encoder = job.outputs["tokens"], Encoder(job.inputs["tokenizer"].path)
    around = Surroundings(job.options, job.inputs["tokenizer"].path, encoder.special_tokens, encoder.chat_template)
    sources = [Source(dict(facts)) for facts in job.inputs["raw"].content["sources"]]
    with (
        TokenWriter(draft.path, id_dtype(encoder.vocab_size)) as writer,
        (draft.path / "rejected.jsonl").open("w", encoding="utf-8") as rejected,
    ):
        for number, source in enumerate(sources):
            format_row = format_of(_entry(job.options, source.facts["name"]), around)
            path = job.inputs["raw"].path / source.facts["name"] / source.facts["file"]
            rows = read_rows(path, source.facts["format"], source.label)
            with job.progress.task(f"tokenize {source.facts['name']}", unit="rows") as task:
                _tokenize(number, source, rows, format_row, encoder, writer, rejected, task)
            _report(job, source)
    totals = {name: sum(source.counts[name] for source in sources) for name in ("rows", "tokens", "trained_tokens", "rejected")}
    draft.describe(sources=[source.describe() for source in sources], vocab_size=encoder.vocab_size, **totals)
    return totals


def _entry(options: TokenizeOptions, name: str) -> DatasetFormat:
    split, number = name.split("-")
    entries = options.datasets if split == "train" else options.test_datasets or []
    return entries[int(number)]


def _tokenize(
    number: int,
    source: Source,
    rows: Iterator[NumberedRow],
    format_row: Format,
    encoder: Encoder,
    writer: TokenWriter,
    rejected: TextIO,
    task: Task,
) -> None:
    while block := list(islice(rows, _BLOCK_ROWS)):
        before = source.counts["tokens"]
        for row_number, outcome in _encode_block(block, format_row, encoder):
            if isinstance(outcome, BadRow):
                _reject(source, row_number, str(outcome), rejected)
            else:
                ids, mask = outcome
                writer.add(ids, mask, number, row_number)
                source.counts.update(rows=1, tokens=len(ids), trained_tokens=int(mask.sum()))
                source.longest = max(source.longest, len(ids))
        task.advance(len(block), tokens=source.counts["tokens"] - before)


def _encode_block(block: list[NumberedRow], format_row: Format, encoder: Encoder) -> Iterator[tuple[int, Encoded | BadRow]]:
    formatted = [(number, _try(format_row, row)) for number, row in block]
    encoded = iter(encoder.encode([made for _, made in formatted if isinstance(made, Example)]))
    for number, made in formatted:
        if isinstance(made, BadRow):
            yield number, made
            continue
        ids, mask = as_encoded(made) if isinstance(made, Tokenized) else next(encoded)
        yield number, (ids, mask) if mask.any() else BadRow("no trained token")


def _try(format_row: Format, row: Any) -> Example | Tokenized | BadRow:
    if isinstance(row, BadRow):
        return row
    try:
        return _utf8(format_row(row))
    except BadRow as reason:
        return reason


def _utf8(made: Example | Tokenized) -> Example | Tokenized:
    """JSON can escape half of a surrogate pair, which is no character."""
    try:
        for piece in made.pieces if isinstance(made, Example) else ():
            piece.text.encode("utf-8")
    except UnicodeEncodeError:
        raise BadRow("text with a lone surrogate, which no UTF-8 can hold") from None
    return made


def _reject(source: Source, row: int, reason: str, stream: TextIO) -> None:
    reason = reason.encode("utf-8", "backslashreplace").decode("utf-8")  # it may quote the row
    source.counts["rejected"] += 1
    source.rejected[reason] += 1
    source.first_rejected.setdefault(reason, row)
    stream.write(json.dumps({"source": source.facts["name"], "file": source.facts["file"], "row": row, "reason": reason}) + "\n")


def _report(job: Job[TokenizeOptions], source: Source) -> None:
    for reason, count in sorted(source.rejected.items()):
        first = source.first_rejected[reason] + 1
        job.progress.say(
            f"{source.label}: {count} rows left out: {reason} (first: line or item {first}). All are in data/tokens/rejected.jsonl."
        )
    if not source.counts["rows"]:
        reasons = "; ".join(f"{reason} ({count} rows)" for reason, count in source.rejected.most_common(3)) or "it holds no rows"
        raise RegrowError(
            f"{source.label}: no row can be used: {reasons}.",
            f"Its dataset entry has type {_entry(job.options, source.facts['name']).type!r}; check that the columns fit it.",
        )

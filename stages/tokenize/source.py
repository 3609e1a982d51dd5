"""One file of a dataset entry, and what became of its rows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa

from pipeline.errors import RegrowError
from pipeline.tokens import TokenWriter, column
from stages.tokenize.blocks import Block
from stages.tokenize.cache import Tokens

COUNTED = ("rows", "tokens", "trained_tokens")


@dataclass
class Source:
    """A rows file with its facts from data/raw, and counts of what was made of it."""

    facts: dict[str, Any]
    rows_file: Path
    numbers: np.ndarray | None
    counts: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    first_rejected: dict[str, int] = field(default_factory=dict)
    longest: int = 0

    @property
    def label(self) -> str:
        """The file as messages name it."""
        return f"{self.facts['path']} ({self.facts['file']})" if self.facts["path"] != self.facts["file"] else str(self.facts["path"])

    def rows(self, lines: np.ndarray) -> np.ndarray:
        """Numbers at the source of lines of the rows file, both int64 ``[rows]``."""
        return lines if self.numbers is None else np.asarray(self.numbers[lines])

    def place(self, block: Block) -> str:
        """Where a block is, for messages: its lines or items, from 1."""
        first, last = (int(row) + 1 for row in self.rows(np.array([block.line, block.line + block.lines - 1])))
        return f"{self.label}, lines or items {first} to {last}"

    def describe(self) -> dict[str, Any]:
        """For the manifest."""
        counts = {name: self.counts[name] for name in (*COUNTED, "slow_rows")}
        return self.facts | counts | {"longest": self.longest, "rejected": dict(sorted(self.rejected.items()))}

    def write(self, number: int, block: Block, tokens: Tokens, writer: TokenWriter, rejected: TextIO) -> int:
        """Put a block's rows into the artifact under their numbers at the source; returns its tokens.

        Raises:
            RegrowError: they have other parts than the rows before them.
        """
        self._reject(block, tokens.rejected, rejected)
        self.counts["slow_rows"] += tokens.slow
        batch = tokens.batch
        if batch is None:
            return 0
        rows = self.rows(batch["row"].to_numpy() + block.line)
        added = self._count(batch)
        batch = batch.set_column(batch.schema.get_field_index("row"), "row", column(np.asarray(rows, np.int64)))
        batch = batch.set_column(batch.schema.get_field_index("source"), "source", column(np.full(len(rows), number, np.uint16)))
        try:
            writer.write(batch)
        except pa.ArrowInvalid:
            raise RegrowError(
                f"{self.label}: its rows have other parts than those of the datasets before it (two answers, labels, or a reference).",
                "Train on datasets of one kind.",
            ) from None
        return added

    def _count(self, batch: pa.RecordBatch) -> int:
        """Tokens of a batch, of both answers where there are two."""
        names = [name for name in batch.schema.names if name.endswith("input_ids")]
        lengths = [np.diff(batch[name].offsets.to_numpy()) for name in names]
        trained = sum(int(batch[name].values.to_numpy().sum()) for name in batch.schema.names if name.endswith("loss_mask"))
        tokens = sum(int(counts.sum()) for counts in lengths)
        self.counts.update(rows=len(batch), tokens=tokens, trained_tokens=trained)
        self.longest = max(self.longest, *(int(counts.max()) for counts in lengths))
        return tokens

    def _reject(self, block: Block, left_out: Sequence[tuple[int, str]], stream: TextIO) -> None:
        rows = self.rows(np.array([line for line, _ in left_out], np.int64) + block.line).tolist()
        for row, (_, reason) in zip(rows, left_out, strict=True):
            self.counts["rejected"] += 1
            self.rejected[reason] += 1
            self.first_rejected.setdefault(reason, row)
            stream.write(json.dumps({"source": self.facts["name"], "file": self.facts["file"], "row": row, "reason": reason}) + "\n")

    def remarks(self) -> Iterator[str]:
        """What the user should know of its rows.

        Raises:
            RegrowError: none can be used.
        """
        for reason, count in sorted(self.rejected.items()):
            first = self.first_rejected[reason] + 1
            yield f"{self.label}: {count} rows left out: {reason} (first: line or item {first}). All are in data/tokens/rejected.jsonl."
        if slow := self.counts["slow_rows"]:
            yield f"{self.label}: {slow} rows rendered turn by turn, the slow way: in one rendering of them the turns cannot be told apart."
        if not self.counts["rows"]:
            reasons = "; ".join(f"{reason} ({count} rows)" for reason, count in self.rejected.most_common(3)) or "it holds no rows"
            raise RegrowError(
                f"{self.label}: no row can be used: {reasons}.",
                f"Its dataset entry has type {self.facts['type']!r}; check that the columns fit it.",
            )


def open_source(raw: Path, facts: Mapping[str, Any], kind: str | None) -> Source:
    """A source as data/raw describes it; ``kind`` is its dataset type."""
    kept = {name: value for name, value in facts.items() if name not in ("rows_file", "numbers")} | {"type": kind}
    return Source(kept, raw / facts["rows_file"], _numbers(raw / facts["numbers"]) if facts.get("numbers") else None)


def _numbers(path: Path) -> np.ndarray:
    """int64 ``[lines]``, mapped: there are as many as rows. An empty file cannot be mapped."""
    return np.memmap(path, "<i8", "r") if path.stat().st_size else np.zeros(0, np.int64)


def require_none_rejected(sources: Sequence[Source]) -> None:
    """What ``tokenize.strict`` asks for.

    Raises:
        RegrowError: a row was left out.
    """
    left_out = [(source, reason, count) for source in sources for reason, count in source.rejected.most_common()]
    if left_out:
        lines = [
            f"{source.label}: {count} rows: {reason} (first: line or item {source.first_rejected[reason] + 1})"
            for source, reason, count in left_out[:8]
        ]
        raise RegrowError(
            f"{sum(count for _, _, count in left_out)} rows cannot be used, and tokenize.strict is true:\n  " + "\n  ".join(lines),
            "Correct them, or set tokenize.strict: false to train on the others.",
        )

"""Rows that pack left out, wholly or in part, and why: ``left_out.arrow`` in data/packed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.tokens import column


@dataclass(frozen=True)
class LeftOut:
    """One record per row of data/tokens that dedupe kept and of which tokens were left out, all of them or some.

    Attributes:
        row: int64 ``[rows]``, rows of the token table, ascending.
        reason: int32 ``[rows]``, index into ``reasons``.
        reasons: in words.
    """

    row: np.ndarray
    reason: np.ndarray
    reasons: tuple[str, ...]

    @classmethod
    def of(cls, rows: list[tuple[str, np.ndarray]]) -> LeftOut:
        """From rows by reason; a row that is named twice has its first reason."""
        reasons = tuple(dict.fromkeys(reason for reason, _ in rows))
        row = np.concatenate([np.zeros(0, np.int64), *(part for _, part in rows)])
        reason = np.concatenate([np.zeros(0, np.int32), *(np.full(len(part), reasons.index(name), np.int32) for name, part in rows)])
        _, first = np.unique(row, return_index=True)
        return cls(row[first], reason[first], reasons)

    def why(self, row: int) -> str | None:
        """The reason of a row; nothing for one that was not left out."""
        at = int(np.searchsorted(self.row, row))
        return self.reasons[int(self.reason[at])] if at < len(self.row) and self.row[at] == row else None

    def save(self, path: Path) -> None:
        """Write the index; the same index makes the same bytes."""
        reason = pa.DictionaryArray.from_arrays(column(self.reason.astype(np.int32)), pa.array(self.reasons, pa.string()))
        table = pa.table({"row": column(self.row.astype(np.int64)), "reason": reason})
        with pa.ipc.new_file(pa.OSFile(str(path), "wb"), table.schema) as writer:
            writer.write_table(table)

    @classmethod
    def load(cls, path: Path) -> LeftOut:
        """Read the index."""
        table = pa.ipc.open_file(pa.memory_map(str(path), "r")).read_all().combine_chunks()
        if not table.num_rows:
            return cls.of([])
        reason = table["reason"].chunk(0)
        return cls(table["row"].to_numpy(), reason.indices.to_numpy(), tuple(reason.dictionary.to_pylist()))

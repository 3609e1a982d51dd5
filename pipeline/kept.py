"""The dedupe artifact: one record per row of data/tokens, kept or removed and why."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa


@dataclass(frozen=True)
class KeptRows:
    """Columns of ``index.arrow``.

    Attributes:
        keep: bool ``[rows]``.
        duplicate_of: int64 ``[rows]``, the kept row that a removed row duplicates, -1 for none.
        reason: why a row was removed, ``None`` for kept rows.
    """

    keep: np.ndarray
    duplicate_of: np.ndarray
    reason: list[str | None]

    @classmethod
    def all_of(cls, rows: int) -> KeptRows:
        """Nothing removed."""
        return cls(np.ones(rows, bool), np.full(rows, -1, np.int64), [None] * rows)

    def removed(self) -> dict[str, int]:
        """Rows removed, by reason."""
        return dict(sorted(Counter(reason for reason in self.reason if reason is not None).items()))

    def save(self, path: Path) -> None:
        """Write the index; the same index makes the same bytes."""
        columns = {"keep": pa.array(self.keep), "duplicate_of": pa.array(self.duplicate_of), "reason": pa.array(self.reason, pa.string())}
        table = pa.table(columns)
        with pa.ipc.new_file(pa.OSFile(str(path), "wb"), table.schema) as writer:
            writer.write_table(table)

    @classmethod
    def load(cls, path: Path) -> KeptRows:
        """Read the index."""
        table = pa.ipc.open_file(pa.memory_map(str(path), "r")).read_all()
        return cls(table["keep"].to_numpy(), table["duplicate_of"].to_numpy(), table["reason"].to_pylist())

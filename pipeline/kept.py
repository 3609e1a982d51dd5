"""The dedupe artifact: one record per row of data/tokens, kept or removed, and for a removed row why and because of which row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.tokens import column

EXACT = "exact duplicate"
NEAR = "near duplicate"
OVERLAP = "overlaps a row of dedupe.against"
APART = "held apart by dedupe.against"
REASONS = (EXACT, NEAR, OVERLAP, APART)
"""Why a row is not kept. A row held apart is a benchmark's: nobody asked for it to be trained, so it does not count as removed."""


class Reasons:
    """Why each row is not kept, ``None`` for kept rows; one byte a row.

    Attributes:
        codes: int8 ``[rows]``, index into :data:`REASONS`, -1 for kept rows.
    """

    def __init__(self, codes: np.ndarray) -> None:
        self.codes = codes

    @classmethod
    def of(cls, reasons: Iterable[str | None]) -> Reasons:
        """From texts, each one of :data:`REASONS` or ``None``."""
        return cls(np.asarray([-1 if reason is None else REASONS.index(reason) for reason in reasons], np.int8))

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, row: int) -> str | None:
        code = int(self.codes[row])
        return None if code < 0 else REASONS[code]

    def __iter__(self) -> Iterator[str | None]:
        return (None if code < 0 else REASONS[code] for code in self.codes.tolist())


@dataclass(frozen=True)
class KeptRows:
    """Columns of ``index.arrow``.

    Attributes:
        keep: bool ``[rows]``.
        duplicate_of: int64 ``[rows]``, the row that a removed row duplicates, -1 for none: a kept row, or one held apart.
        reason: why a row is not kept.
        similarity: float64 ``[rows]`` to the row in ``duplicate_of``: 1 for exact duplicates, the common share of n-grams for
            others; NaN for none.
    """

    keep: np.ndarray
    duplicate_of: np.ndarray
    reason: Reasons
    similarity: np.ndarray

    @classmethod
    def all_of(cls, rows: int) -> KeptRows:
        """Nothing removed."""
        return cls(np.ones(rows, bool), np.full(rows, -1, np.int64), Reasons(np.full(rows, -1, np.int8)), np.full(rows, np.nan))

    def remove(self, rows: np.ndarray, reason: str, duplicate_of: np.ndarray | int = -1, similarity: np.ndarray | float = np.nan) -> None:
        """Mark ``rows``, int64 ``[removed]``; the other arguments are those of the columns, for these rows."""
        self.keep[rows] = False
        self.duplicate_of[rows] = duplicate_of
        self.reason.codes[rows] = REASONS.index(reason)
        self.similarity[rows] = similarity

    def removed(self) -> dict[str, int]:
        """Rows removed, by reason. Rows held apart are none."""
        return {reason: count for reason, count in self.left_out().items() if reason != APART}

    def left_out(self) -> dict[str, int]:
        """Rows that are not kept, by reason, those held apart as well."""
        counts = np.bincount(self.reason.codes + 1, minlength=len(REASONS) + 1)[1:].tolist()
        return {reason: count for reason, count in sorted(zip(REASONS, counts, strict=True)) if count}

    def save(self, path: Path) -> None:
        """Write the index; the same index makes the same bytes."""
        codes, text = self.reason.codes, "".join(REASONS).encode()
        ends = column(np.cumsum([0, *map(len, REASONS)], dtype=np.int32)).buffers()[1]
        indices = pa.Array.from_buffers(pa.int8(), len(codes), [_bits(codes >= 0), pa.py_buffer(codes)])
        columns = {
            "keep": pa.Array.from_buffers(pa.bool_(), len(codes), [None, _bits(self.keep)]),
            "duplicate_of": column(self.duplicate_of),
            "reason": pa.DictionaryArray.from_arrays(indices, pa.StringArray.from_buffers(len(REASONS), ends, pa.py_buffer(text))),
            "similarity": column(self.similarity),
        }
        batch = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
        with pa.ipc.new_file(pa.OSFile(str(path), "wb"), batch.schema) as writer:
            writer.write_batch(batch)

    @classmethod
    def load(cls, path: Path) -> KeptRows:
        """Read the index."""
        table = pa.ipc.open_file(pa.memory_map(str(path), "r")).read_all()
        reason = table["reason"].combine_chunks()
        codes = reason.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        return cls(table["keep"].to_numpy(), table["duplicate_of"].to_numpy(), Reasons(codes), table["similarity"].to_numpy())


def _bits(flags: np.ndarray) -> pa.Buffer:
    return pa.py_buffer(np.packbits(flags, bitorder="little"))

"""The packed artifact: which spans of which token rows share a sequence. An index over data/tokens, megabytes for any corpus.

One Arrow IPC file per split (``train.arrow``, ``eval.arrow``), one record per bin, columns ``row`` large_list<int64>,
``start`` large_list<int32>, ``length`` large_list<int32>: a bin is the concatenation of those spans.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.tokens import TokenTable, digest_row

_COLUMNS = {"row": pa.int64(), "start": pa.int32(), "length": pa.int32()}


@dataclass(frozen=True)
class Bins:
    """Spans of all bins, flat: bin ``b`` is spans ``offsets[b]:offsets[b + 1]``.

    Attributes:
        offsets: int64 ``[bins + 1]``.
        row: int64 ``[spans]``, rows of the token table.
        start: int32 ``[spans]``, first token of the span within its row.
        length: int32 ``[spans]``, tokens of the span.
    """

    offsets: np.ndarray
    row: np.ndarray
    start: np.ndarray
    length: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @classmethod
    def load(cls, path: Path) -> Bins:
        """Read one split's file."""
        table = pa.ipc.open_file(pa.memory_map(str(path), "r")).read_all().combine_chunks()
        if not table.num_rows:
            return cls(np.zeros(1, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int32))
        columns = [table[name].chunk(0) for name in _COLUMNS]
        row, start, length = (column.values.to_numpy() for column in columns)
        return cls(columns[0].offsets.to_numpy(), row, start, length)

    def save(self, path: Path) -> None:
        """Write one split's file; the same bins make the same bytes."""
        offsets = pa.array(self.offsets.astype(np.int64))
        arrays = [pa.LargeListArray.from_arrays(offsets, pa.array(getattr(self, name), kind)) for name, kind in _COLUMNS.items()]
        table = pa.table(arrays, names=list(_COLUMNS))
        with pa.ipc.new_file(pa.OSFile(str(path), "wb"), table.schema) as writer:
            writer.write_table(table)

    def spans(self, bin_number: int) -> Iterator[tuple[int, int, int]]:
        """(row, start, length) of each span of a bin, in order."""
        for i in range(int(self.offsets[bin_number]), int(self.offsets[bin_number + 1])):
            yield int(self.row[i]), int(self.start[i]), int(self.length[i])

    def content_digest(self, tokens: TokenTable) -> str:
        """SHA-256 (hex) of the token stream in plan order: what is trained, whatever the layout of the files.

        Covers every span's tokens, masks and labels, and where bins begin.
        """
        hasher, empty = hashlib.sha256(), np.zeros(0, np.int32)
        for number in range(len(self)):
            for row, start, length in self.spans(number):
                hasher.update(tokens.digest_span(row, start, length))
            hasher.update(digest_row(empty, empty))
        return hasher.hexdigest()

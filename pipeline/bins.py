"""The packed artifact: which spans of which token rows share a sequence. An index over data/tokens, megabytes for any corpus.

One Arrow IPC file per split (``train.arrow``, ``eval.arrow``), one record per bin: the bin is the concatenation of spans of rows.

============ ============================== =======================================================================
row          large_list<int64>              rows of data/tokens
start        large_list<int32>              first token of each span within its row
length       large_list<int32>              tokens of each span
skip_at      large_list<large_list<int32>>  where positions skip only: tokens of each span before which they do
skip_by      likewise                       and by how many
============ ============================== =======================================================================
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.tokens import TokenTable, column, digest_row

_COLUMNS = {"row": np.int64, "start": np.int32, "length": np.int32}
_BINS_AT_ONCE = 2**16
_NOTHING = np.zeros(0, np.int32)


@dataclass(frozen=True)
class Skips:
    """Jumps in the positions inside spans, flat: span ``s`` has ``offsets[s]:offsets[s + 1]``.

    Attributes:
        offsets: int64 ``[spans + 1]``.
        at: int32 ``[skips]``, the token of the span before which positions jump; rising within a span, never 0.
        by: int32 ``[skips]``, positions left out.
    """

    offsets: np.ndarray
    at: np.ndarray
    by: np.ndarray

    def take(self, order: np.ndarray) -> Skips:
        """Those of the spans that ``order`` (indices) names, in that order."""
        counts = np.diff(self.offsets)[order]
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        chosen = np.arange(offsets[-1]) + np.repeat(self.offsets[order] - offsets[:-1], counts)
        return Skips(offsets, self.at[chosen], self.by[chosen])


@dataclass(frozen=True)
class Bins:
    """Spans of all bins, flat: bin ``b`` is spans ``offsets[b]:offsets[b + 1]``.

    Attributes:
        offsets: int64 ``[bins + 1]``.
        row: int64 ``[spans]``, rows of the token table.
        start: int32 ``[spans]``, first token of the span within its row.
        length: int32 ``[spans]``, tokens of the span.
        skips: of every span, or ``None`` where no position is left out.
    """

    offsets: np.ndarray
    row: np.ndarray
    start: np.ndarray
    length: np.ndarray
    skips: Skips | None = None

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
        skips = None
        if "skip_at" in table.column_names:
            at, by = (table[name].chunk(0).values for name in ("skip_at", "skip_by"))
            skips = Skips(at.offsets.to_numpy(), at.values.to_numpy(), by.values.to_numpy())
        return cls(columns[0].offsets.to_numpy(), row, start, length, skips)

    def save(self, path: Path) -> None:
        """Write one split's file; the same bins make the same bytes."""
        offsets = column(self.offsets.astype(np.int64, copy=False))
        values = {name: column(getattr(self, name).astype(kind, copy=False)) for name, kind in _COLUMNS.items()}
        if self.skips is not None:
            own = column(self.skips.offsets.astype(np.int64, copy=False))
            for name, numbers in (("skip_at", self.skips.at), ("skip_by", self.skips.by)):
                values[name] = pa.LargeListArray.from_arrays(own, column(numbers.astype(np.int32, copy=False)))
        arrays = {name: pa.LargeListArray.from_arrays(offsets, found) for name, found in values.items()}
        table = pa.Table.from_arrays(list(arrays.values()), names=list(arrays))
        with pa.ipc.new_file(pa.OSFile(str(path), "wb"), table.schema) as writer:
            writer.write_table(table)

    def tokens_per_bin(self) -> np.ndarray:
        """int64 ``[bins]``."""
        return self.sums(self.length)

    def sums(self, per_span: np.ndarray) -> np.ndarray:
        """int64 ``[bins]``: the sum over the spans of each bin of what ``per_span`` says of each span."""
        return np.diff(np.concatenate([[0], np.cumsum(per_span, dtype=np.int64)])[self.offsets])

    def spans(self, bin_number: int) -> Iterator[tuple[int, int, int]]:
        """(row, start, length) of each span of a bin, in order."""
        for i in range(int(self.offsets[bin_number]), int(self.offsets[bin_number + 1])):
            yield int(self.row[i]), int(self.start[i]), int(self.length[i])

    def seq_lengths(self, bin_number: int) -> np.ndarray:
        """int32 ``[spans of the bin]``: tokens of each."""
        return self.length[self.offsets[bin_number] : self.offsets[bin_number + 1]]

    def position_ids(self, bin_number: int) -> np.ndarray:
        """int64 ``[tokens of the bin]``: each token's position, from 0 in every span, with the skips."""
        first, last = int(self.offsets[bin_number]), int(self.offsets[bin_number + 1])
        lengths = self.length[first:last].astype(np.int64)
        starts = np.cumsum(lengths) - lengths
        positions = np.arange(lengths.sum()) - np.repeat(starts, lengths)
        if self.skips is not None:
            for span, begin in zip(range(first, last), starts.tolist(), strict=True):
                skips = slice(int(self.skips.offsets[span]), int(self.skips.offsets[span + 1]))
                for at, by in zip(self.skips.at[skips].tolist(), self.skips.by[skips].tolist(), strict=True):
                    positions[begin + at : begin + int(lengths[span - first])] += by
        return positions

    def content_digest(self, tokens: TokenTable) -> str:
        """SHA-256 (hex) of what is trained, in plan order, whatever rows are numbered and however files are cut.

        Hashed are 16 bytes for each span, its :meth:`~pipeline.tokens.TokenTable.digest_span` (for a whole row the digest that
        is stored with it); after the last span of each bin the digest of no tokens; then, where positions skip, for each span the
        number of its skips, and ``at`` and ``by`` of all skips, as little-endian int64. Tokens, masks, labels and the borders
        of rows and bins are covered; file layout, row numbers and stored dtypes are not.
        """
        hasher, border = hashlib.sha256(), np.frombuffer(digest_row(_NOTHING, _NOTHING), "<u8")
        for first in range(0, len(self), _BINS_AT_ONCE):
            ends = self.offsets[first : first + _BINS_AT_ONCE + 1]
            spans = self._span_digests(tokens, slice(int(ends[0]), int(ends[-1])))
            hasher.update(np.insert(spans, ends[1:] - ends[0], border, axis=0).astype("<u8", copy=False).data)
        for numbers in () if self.skips is None else (np.diff(self.skips.offsets), self.skips.at, self.skips.by):
            hasher.update(np.ascontiguousarray(numbers, "<i8").data)
        return hasher.hexdigest()

    def _span_digests(self, tokens: TokenTable, part: slice) -> np.ndarray:
        """uint64 ``[spans of the part, 2]``. Only what is not a whole row is read."""
        row, start, length = self.row[part], self.start[part], self.length[part]
        digests: np.ndarray = tokens.digest[row]
        for span in np.flatnonzero((start > 0) | (length < tokens.longest[row])).tolist():
            digests[span] = np.frombuffer(tokens.digest_span(int(row[span]), int(start[span]), int(length[span])), "<u8")
        return digests

"""The token artifact: every row's token ids, loss mask and provenance, written once, read memory-mapped.

Uncompressed Arrow IPC files of a few hundred MB, byte-identical across pyarrow versions. Columns:

=================== =========================== ==================================================================
input_ids           large_list<uint16 | int32>  token ids; uint16 where the vocabulary fits
loss_mask           large_list<uint8>           1 where the token is trained
source              uint16                      index into the manifest's ``sources`` (dataset entry and file)
row                 int64                       row of that file, from 0
digest              fixed_size_binary[16]       BLAKE2b of ids, mask and what follows: equal rows have equal digests
rejected_input_ids  as input_ids                rows with two answers only: the one that was not chosen, prompt included
rejected_loss_mask  as loss_mask                likewise
labels              large_list<int8>            rows with labels only: one for the row, or one per trained token
reference           large_string                rows that the model answers itself only: what they hold besides ids, as JSON
=================== =========================== ==================================================================
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa

SHARD_BYTES = 256 * 2**20
_BATCH_ROWS = 1024

Pair = tuple[np.ndarray, np.ndarray]
"""Token ids ``[tokens]`` and loss mask ``[tokens]``."""


def id_dtype(vocab_size: int) -> np.dtype:
    """The narrowest of uint16 and int32 that holds every id of a vocabulary."""
    return np.dtype(np.uint16 if vocab_size <= 2**16 else np.int32)


def digest_row(
    ids: np.ndarray, mask: np.ndarray, rejected: Pair | None = None, labels: np.ndarray | None = None, reference: str | None = None
) -> bytes:
    """16 bytes that identify a row's tokens, mask, labels and reference, whatever dtype they are stored in."""
    hasher = hashlib.blake2b(digest_size=16)
    for own_ids, own_mask in [(ids, mask), *([] if rejected is None else [rejected])]:
        hasher.update(len(own_ids).to_bytes(8, "little"))
        hasher.update(np.ascontiguousarray(own_ids, "<i4").data)
        hasher.update(np.ascontiguousarray(own_mask, "u1").data)
    if labels is not None:
        hasher.update(np.ascontiguousarray(labels, "i1").data)
    if reference is not None:
        hasher.update(reference.encode("utf-8"))
    return hasher.digest()


class TokenRows:
    """Rows on their way into one Arrow record batch. All have two answers or none, labels or none, a reference or none."""

    def __init__(self, dtype: np.dtype) -> None:
        self._dtype = dtype
        self._ids: list[np.ndarray] = []
        self._masks: list[np.ndarray] = []
        self._keys: list[tuple[int, int]] = []
        self._digests: list[bytes] = []
        self._rejected: list[Pair] = []
        self._labels: list[np.ndarray] = []
        self._references: list[str] = []

    def __len__(self) -> int:
        return len(self._ids)

    def add(
        self,
        ids: np.ndarray,
        mask: np.ndarray,
        source: int,
        row: int,
        rejected: Pair | None = None,
        labels: np.ndarray | None = None,
        reference: str | None = None,
    ) -> None:
        """One row: int array ``[tokens]``, 0/1 array ``[tokens]``, its source, its row number there, what else it has."""
        self._ids.append(ids)
        self._masks.append(mask)
        self._keys.append((source, row))
        self._digests.append(digest_row(ids, mask, rejected, labels, reference))
        if rejected is not None:
            self._rejected.append(rejected)
        if labels is not None:
            self._labels.append(labels)
        if reference is not None:
            self._references.append(reference)

    def batch(self) -> pa.RecordBatch:
        """All rows added, at least one.

        Raises:
            ValueError: some have two answers, or labels, or a reference, and others not.
        """
        sources, rows = zip(*self._keys, strict=True)
        columns = {
            "input_ids": _lists(self._ids, self._dtype),
            "loss_mask": _lists(self._masks, np.dtype(np.uint8)),
            "source": column(np.asarray(sources, np.uint16)),
            "row": column(np.asarray(rows, np.int64)),
            "digest": pa.Array.from_buffers(pa.binary(16), len(rows), [None, pa.py_buffer(b"".join(self._digests))]),
        }
        if self._rejected:
            columns["rejected_input_ids"] = _lists([ids for ids, _ in self._rejected], self._dtype)
            columns["rejected_loss_mask"] = _lists([mask for _, mask in self._rejected], np.dtype(np.uint8))
        if self._labels:
            columns["labels"] = _lists(self._labels, np.dtype(np.int8))
        if self._references:
            columns["reference"] = _texts(self._references)
        return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def _lists(parts: list[np.ndarray], dtype: np.dtype) -> pa.LargeListArray:
    offsets = np.zeros(len(parts) + 1, np.int64)
    np.cumsum([len(part) for part in parts], out=offsets[1:])
    return pa.LargeListArray.from_arrays(column(offsets), column(np.concatenate(parts).astype(dtype, copy=False)))


def _texts(texts: list[str]) -> pa.LargeStringArray:
    parts = [text.encode("utf-8") for text in texts]
    ends = np.cumsum([0, *map(len, parts)], dtype=np.int64)
    return pa.LargeStringArray.from_buffers(len(parts), pa.py_buffer(ends), pa.py_buffer(b"".join(parts)))


def column(values: np.ndarray) -> pa.Array:
    """A column of numbers without nulls. `pa.array` makes the same, and imports pandas for it: a third of a second."""
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])


def empty_batch(dtype: np.dtype) -> pa.RecordBatch:
    """No rows, with the columns that every token artifact has."""
    rows = TokenRows(dtype)
    rows.add(np.zeros(0, dtype), np.zeros(0, np.uint8), 0, 0)
    return rows.batch().slice(0, 0)


class TokenWriter:
    """Writes rows or whole record batches in the order given; the same batches make the same bytes."""

    def __init__(self, folder: Path, dtype: np.dtype) -> None:
        self._folder, self._dtype = folder, dtype
        self._rows = TokenRows(dtype)
        self._writer: pa.ipc.RecordBatchFileWriter | None = None
        self._shard, self._bytes = 0, 0

    def __enter__(self) -> TokenWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self._flush()
            if self._writer is None and self._shard == 0:
                self._open(empty_batch(self._dtype).schema)
        if self._writer is not None:
            self._writer.close()

    def add(
        self,
        ids: np.ndarray,
        mask: np.ndarray,
        source: int,
        row: int,
        rejected: Pair | None = None,
        labels: np.ndarray | None = None,
        reference: str | None = None,
    ) -> None:
        """One row, as :meth:`TokenRows.add`."""
        self._rows.add(ids, mask, source, row, rejected, labels, reference)
        if len(self._rows) == _BATCH_ROWS:
            self._flush()

    def write(self, batch: pa.RecordBatch) -> None:
        """A batch that :class:`TokenRows` made."""
        if self._writer is None:
            self._open(batch.schema)
        assert self._writer is not None
        self._writer.write_batch(batch)
        self._bytes += batch.nbytes
        if self._bytes >= SHARD_BYTES:
            self._writer.close()
            self._writer, self._shard, self._bytes = None, self._shard + 1, 0

    def _open(self, schema: pa.Schema) -> None:
        path = self._folder / f"tokens-{self._shard:05d}.arrow"
        self._writer = pa.ipc.new_file(pa.OSFile(str(path), "wb"), schema)

    def _flush(self) -> None:
        if len(self._rows):
            self.write(self._rows.batch())
            self._rows = TokenRows(self._dtype)


class _Lists:
    """A list column over all shards, read row by row as views of the mapped files."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._values: list[np.ndarray] = [chunk.values.to_numpy(zero_copy_only=True) for chunk in column.chunks]
        self._offsets: list[np.ndarray] = [chunk.offsets.to_numpy(zero_copy_only=True) for chunk in column.chunks]
        self._starts = np.cumsum([0, *(len(offsets) - 1 for offsets in self._offsets)])

    def lengths(self) -> np.ndarray:
        return np.concatenate([np.zeros(0, np.int64), *(np.diff(offsets) for offsets in self._offsets)])

    def sums(self) -> np.ndarray:
        """int64 ``[rows]``: the sum of each list."""
        totals = [np.concatenate([[0], np.cumsum(values, dtype=np.int64)]) for values in self._values]
        return np.concatenate(
            [np.zeros(0, np.int64), *(total[ends[1:]] - total[ends[:-1]] for total, ends in zip(totals, self._offsets, strict=True))]
        )

    def sums_between(self, row: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """int64 ``[spans]``: the sum of each list ``row`` from ``start`` up to ``end``. Reads every shard in one go."""
        chunk = np.searchsorted(self._starts, row, "right") - 1
        order = np.argsort(chunk, kind="stable")
        edges = np.searchsorted(chunk[order], np.arange(len(self._values) + 1))
        sums = np.zeros(len(row), np.int64)
        for number in np.flatnonzero(np.diff(edges)).tolist():
            spans = order[edges[number] : edges[number + 1]]
            total = np.concatenate([[0], np.cumsum(self._values[number], dtype=np.int64)])
            first = self._offsets[number][row[spans] - self._starts[number]]
            sums[spans] = total[first + end[spans]] - total[first + start[spans]]
        return sums

    def largest(self) -> np.ndarray:
        """int64 ``[rows]``: the largest value of each list, -1 of an empty one."""
        parts = [np.zeros(0, np.int64)]
        for values, offsets in zip(self._values, self._offsets, strict=True):
            parts.append(np.full(len(offsets) - 1, -1, np.int64))
            filled = np.flatnonzero(np.diff(offsets))
            if len(filled):
                parts[-1][filled] = np.maximum.reduceat(values[: offsets[-1]], offsets[filled])
        return np.concatenate(parts)

    def __getitem__(self, row: int) -> np.ndarray:
        chunk = int(np.searchsorted(self._starts, row, "right")) - 1
        offsets = self._offsets[chunk]
        local = row - int(self._starts[chunk])
        return self._values[chunk][int(offsets[local]) : int(offsets[local + 1])]


def _digests(column: pa.ChunkedArray) -> np.ndarray:
    parts = [
        np.frombuffer(chunk.buffers()[1], "<u8")[2 * chunk.offset : 2 * (chunk.offset + len(chunk))]
        for chunk in column.chunks
        if len(chunk)
    ]
    return np.concatenate([np.zeros(0, np.uint64), *parts]).reshape(-1, 2)


class TokenTable:
    """Rows of a token artifact by number, without copying: arrays are views of the mapped files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        tables = [pa.ipc.open_file(pa.memory_map(str(path), "r")).read_all() for path in sorted(folder.glob("tokens-*.arrow"))]
        table = pa.concat_tables(tables)
        self._columns = {name: _Lists(table[name]) for name in table.column_names if pa.types.is_large_list(table.schema.field(name).type)}
        self.lengths: np.ndarray = self._columns["input_ids"].lengths()
        """int64 ``[rows]``: tokens of each row."""
        self.source: np.ndarray = table["source"].to_numpy()
        """uint16 ``[rows]``: index into the manifest's ``sources``."""
        self.row: np.ndarray = table["row"].to_numpy()
        """int64 ``[rows]``: row number in that source's file."""
        self._references = table["reference"] if "reference" in table.column_names else None
        self.digest: np.ndarray = _digests(table["digest"])
        """uint64 ``[rows, 2]``: each row's digest."""

    def __len__(self) -> int:
        return len(self.lengths)

    def __reduce__(self) -> tuple[type[TokenTable], tuple[Path]]:
        """Another process maps the files itself; pickled arrays would be copies of them."""
        return TokenTable, (self._folder,)

    @cached_property
    def trained(self) -> np.ndarray:
        """int64 ``[rows]``: trained tokens of each row, of the chosen answer where there are two."""
        return self._columns["loss_mask"].sums()

    @cached_property
    def longest(self) -> np.ndarray:
        """int64 ``[rows]``: tokens of each row, or of its longer answer."""
        return np.asarray(np.maximum(self.lengths, self.rejected_lengths) if self.paired else self.lengths)

    @cached_property
    def rejected_lengths(self) -> np.ndarray:
        """int64 ``[rows]``: tokens of each answer that was not chosen, prompt included; only where :attr:`paired`."""
        return self._columns["rejected_input_ids"].lengths()

    @cached_property
    def largest_id(self) -> np.ndarray:
        """int64 ``[rows]``: the largest token id of each row, with both answers where there are two; -1 of an empty row."""
        largest = self._columns["input_ids"].largest()
        return np.asarray(np.maximum(largest, self._columns["rejected_input_ids"].largest()) if self.paired else largest)

    def count_trained(self, row: np.ndarray, start: np.ndarray, length: np.ndarray, *, rejected: bool = False) -> np.ndarray:
        """int64 ``[spans]``: trained tokens of ``length`` tokens from ``start`` on, in each ``row``, as far as it reaches.

        ``rejected``: in the answer that was not chosen.
        """
        masks = self._columns["rejected_loss_mask" if rejected else "loss_mask"]
        own = masks.lengths()[row]
        return masks.sums_between(row, np.minimum(start, own), np.minimum(start + length, own))

    @property
    def paired(self) -> bool:
        """Whether rows have two answers."""
        return "rejected_input_ids" in self._columns

    @property
    def labelled(self) -> bool:
        """Whether rows have labels."""
        return "labels" in self._columns

    @property
    def referenced(self) -> bool:
        """Whether rows have a reference: they are prompts, which the model answers itself."""
        return self._references is not None

    def ids(self, row: int) -> np.ndarray:
        """Token ids ``[tokens]``, in the stored dtype; of the chosen answer where there are two."""
        return self._columns["input_ids"][row]

    def mask(self, row: int) -> np.ndarray:
        """Loss mask uint8 ``[tokens]``."""
        return self._columns["loss_mask"][row]

    def rejected_ids(self, row: int) -> np.ndarray:
        """Token ids ``[tokens]`` of the answer that was not chosen, prompt included; only where :attr:`paired`."""
        return self._columns["rejected_input_ids"][row]

    def rejected_mask(self, row: int) -> np.ndarray:
        """Its loss mask uint8 ``[tokens]``."""
        return self._columns["rejected_loss_mask"][row]

    def labels(self, row: int) -> np.ndarray:
        """int8 ``[1]`` for the row or ``[trained tokens]``; only where :attr:`labelled`."""
        return self._columns["labels"][row]

    def reference(self, row: int) -> dict[str, Any]:
        """What a row holds besides ids: its prompt, as text or messages, and its other columns; only where :attr:`referenced`."""
        assert self._references is not None
        columns: dict[str, Any] = json.loads(self._references[row].as_py())
        return columns

    def digest_span(self, row: int, start: int, length: int) -> bytes:
        """16 bytes that identify all that is learned from a stretch of a row: tokens, masks, and the labels of the row."""
        span = slice(start, start + length)
        rejected = (self.rejected_ids(row)[span], self.rejected_mask(row)[span]) if self.paired else None
        reference = None if self._references is None else self._references[row].as_py()
        return digest_row(self.ids(row)[span], self.mask(row)[span], rejected, self.labels(row) if self.labelled else None, reference)

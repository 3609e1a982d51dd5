"""The token artifact: every row's token ids, loss mask and provenance, written once, read memory-mapped.

Uncompressed Arrow IPC files of a few hundred MB, byte-identical across pyarrow versions. Columns:

=========== =========================== ==================================================================
input_ids   large_list<uint16 | int32>  token ids; uint16 where the vocabulary fits
loss_mask   large_list<uint8>           1 where the token is trained
source      uint16                      index into the manifest's ``sources`` (dataset entry and file)
row         int64                       row of that file, from 0
digest      fixed_size_binary[16]       BLAKE2b of ids and mask: equal rows have equal digests
=========== =========================== ==================================================================
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa

SHARD_BYTES = 256 * 2**20
_BATCH_ROWS = 1024


def id_dtype(vocab_size: int) -> np.dtype:
    """The narrowest of uint16 and int32 that holds every id of a vocabulary."""
    return np.dtype(np.uint16 if vocab_size <= 2**16 else np.int32)


def digest_row(ids: np.ndarray, mask: np.ndarray) -> bytes:
    """16 bytes that identify a row's tokens and mask, whatever dtype they are stored in."""
    hasher = hashlib.blake2b(digest_size=16)
    hasher.update(len(ids).to_bytes(8, "little"))
    hasher.update(np.ascontiguousarray(ids, "<i4").tobytes())
    hasher.update(np.ascontiguousarray(mask, "u1").tobytes())
    return hasher.digest()


def _schema(dtype: np.dtype) -> pa.Schema:
    return pa.schema(
        [
            ("input_ids", pa.large_list(pa.from_numpy_dtype(dtype))),
            ("loss_mask", pa.large_list(pa.uint8())),
            ("source", pa.uint16()),
            ("row", pa.int64()),
            ("digest", pa.binary(16)),
        ]
    )


class TokenWriter:
    """Writes rows in the order given; the same rows make the same bytes."""

    def __init__(self, folder: Path, dtype: np.dtype) -> None:
        self._folder, self._schema, self._dtype = folder, _schema(dtype), dtype
        self._ids: list[np.ndarray] = []
        self._masks: list[np.ndarray] = []
        self._keys: list[tuple[int, int]] = []
        self._writer: pa.ipc.RecordBatchFileWriter | None = None
        self._shard, self._bytes = 0, 0

    def __enter__(self) -> TokenWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self._flush()
            if self._writer is None and self._shard == 0:
                self._open()
        if self._writer is not None:
            self._writer.close()

    def add(self, ids: np.ndarray, mask: np.ndarray, source: int, row: int) -> None:
        """One row: int array ``[tokens]``, 0/1 array ``[tokens]``, its source and its row number there."""
        self._ids.append(ids.astype(self._dtype, copy=False))
        self._masks.append(mask.astype(np.uint8, copy=False))
        self._keys.append((source, row))
        if len(self._ids) == _BATCH_ROWS:
            self._flush()

    def _open(self) -> None:
        path = self._folder / f"tokens-{self._shard:05d}.arrow"
        self._writer = pa.ipc.new_file(pa.OSFile(str(path), "wb"), self._schema)

    def _flush(self) -> None:
        if not self._ids:
            return
        if self._writer is None:
            self._open()
        assert self._writer is not None
        batch = self._batch()
        self._writer.write_batch(batch)
        self._bytes += batch.nbytes
        self._ids, self._masks, self._keys = [], [], []
        if self._bytes >= SHARD_BYTES:
            self._writer.close()
            self._writer, self._shard, self._bytes = None, self._shard + 1, 0

    def _batch(self) -> pa.RecordBatch:
        offsets = np.zeros(len(self._ids) + 1, np.int64)
        np.cumsum([len(ids) for ids in self._ids], out=offsets[1:])
        sources, rows = zip(*self._keys, strict=True)
        columns = [
            pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate(self._ids))),
            pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate(self._masks))),
            pa.array(sources, pa.uint16()),
            pa.array(rows, pa.int64()),
            pa.array([digest_row(ids, mask) for ids, mask in zip(self._ids, self._masks, strict=True)], pa.binary(16)),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=self._schema)


class TokenTable:
    """Rows of a token artifact by number, without copying: arrays are views of the mapped files."""

    def __init__(self, folder: Path) -> None:
        tables = [pa.ipc.open_file(pa.memory_map(str(path), "r")).read_all() for path in sorted(folder.glob("tokens-*.arrow"))]
        table = pa.concat_tables(tables)
        self._ids: list[np.ndarray] = [chunk.values.to_numpy(zero_copy_only=True) for chunk in table["input_ids"].chunks]
        self._masks: list[np.ndarray] = [chunk.values.to_numpy(zero_copy_only=True) for chunk in table["loss_mask"].chunks]
        self._offsets = [chunk.offsets.to_numpy(zero_copy_only=True) for chunk in table["input_ids"].chunks]
        self._starts = np.cumsum([0, *(len(offsets) - 1 for offsets in self._offsets)])
        empty = np.zeros(0, np.int64)
        self.lengths: np.ndarray = np.concatenate([empty, *(np.diff(offsets) for offsets in self._offsets)])
        """int64 ``[rows]``: tokens of each row."""
        self.source: np.ndarray = table["source"].to_numpy()
        """uint16 ``[rows]``: index into the manifest's ``sources``."""
        self.row: np.ndarray = table["row"].to_numpy()
        """int64 ``[rows]``: row number in that source's file."""
        self.digest: list[bytes] = table["digest"].to_pylist()

    def __len__(self) -> int:
        return len(self.lengths)

    def _locate(self, row: int) -> tuple[int, slice]:
        chunk = int(np.searchsorted(self._starts, row, "right")) - 1
        offsets = self._offsets[chunk]
        local = row - int(self._starts[chunk])
        return chunk, slice(int(offsets[local]), int(offsets[local + 1]))

    def ids(self, row: int) -> np.ndarray:
        """Token ids ``[tokens]``, in the stored dtype."""
        chunk, span = self._locate(row)
        return self._ids[chunk][span]

    def mask(self, row: int) -> np.ndarray:
        """Loss mask uint8 ``[tokens]``."""
        chunk, span = self._locate(row)
        return self._masks[chunk][span]


def digest_stream(spans: Iterable[tuple[np.ndarray, np.ndarray]]) -> str:
    """SHA-256 (hex) of a stream of (ids, mask) spans in order, independent of how files are laid out."""
    hasher = hashlib.sha256()
    for ids, mask in spans:
        hasher.update(digest_row(ids, mask))
    return hasher.hexdigest()

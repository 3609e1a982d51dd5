"""Bins to files of rows, some at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.bins import Bins
from pipeline.progress import Progress
from pipeline.tokens import TokenTable, column

IGNORED = -100
"""The label of a token that is not trained."""

_TOKENS_AT_ONCE = 2**19
_FILE_TOKENS = 2**26
"""About 800 MB of Arrow: 12 bytes a token."""

_COLUMNS = ("input_ids", "labels", "position_ids", "seq_lengths")
_SCHEMA = pa.schema([(name, pa.list_(pa.int32())) for name in _COLUMNS])


def bin_columns(tokens: TokenTable, bins: Bins, number: int) -> dict[str, np.ndarray]:
    """One bin as train sees it: int32 arrays by column.

    The first token of a document is never a label: what comes before it is another document.
    """
    spans = [(row, slice(start, start + length)) for row, start, length in bins.spans(number)]
    ids = np.concatenate([tokens.ids(row)[span] for row, span in spans]).astype(np.int32)
    labels = np.where(np.concatenate([tokens.mask(row)[span] for row, span in spans]) != 0, ids, np.int32(IGNORED))
    lengths = bins.seq_lengths(number)
    labels[np.cumsum(lengths) - lengths] = IGNORED
    return {"input_ids": ids, "labels": labels, "position_ids": bins.position_ids(number).astype(np.int32), "seq_lengths": lengths}


def write_split(folder: Path, kind: str, tokens: TokenTable, bins: Bins, split: str, progress: Progress) -> dict[str, int]:
    """Write all bins to files ``00000.<kind>`` and on in ``folder``.

    Returns:
        ``rows`` (bins), ``tokens``, ``trained_tokens`` (labels) and ``documents`` (spans).
    """
    folder.mkdir()
    counts = {"rows": len(bins), "documents": len(bins.row), "tokens": int(bins.length.sum()), "trained_tokens": 0}
    with progress.task(f"export {split}", total=len(bins), unit="bins") as task, _Files(folder, kind) as files:
        for numbers in _groups(bins):
            rows = [bin_columns(tokens, bins, number) for number in numbers]
            counts["trained_tokens"] += sum(int(np.count_nonzero(row["labels"] != IGNORED)) for row in rows)
            files.write(rows)
            task.advance(len(rows), tokens=sum(len(row["input_ids"]) for row in rows))
    return counts


def _groups(bins: Bins) -> Iterator[range]:
    """Neighbouring bins of about so many tokens that are held in memory at once."""
    ends = np.cumsum(bins.tokens_per_bin())
    first = 0
    while first < len(bins):
        before = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, before + _TOKENS_AT_ONCE, "right")))
        yield range(first, last)
        first = last


class _Files:
    """Files of rows, each begun when the one before is large enough."""

    def __init__(self, folder: Path, kind: str) -> None:
        self._folder, self._kind = folder, kind
        self._file: Any = None
        self._number = self._tokens = 0

    def __enter__(self) -> _Files:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close()

    def write(self, rows: list[dict[str, np.ndarray]]) -> None:
        """Append rows."""
        if self._file is None:
            self._file = _open(self._folder / f"{self._number:05d}.{self._kind}", self._kind)
        if self._kind == "jsonl":
            self._file.writelines(json.dumps({name: values.tolist() for name, values in row.items()}) + "\n" for row in rows)
        else:
            self._file.write_batch(_batch(rows))
        self._tokens += sum(len(row["input_ids"]) for row in rows)
        if self._tokens >= _FILE_TOKENS:
            self._close()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file, self._number, self._tokens = None, self._number + 1, 0


def _open(path: Path, kind: str) -> Any:
    if kind == "jsonl":
        return path.open("w", encoding="utf-8")
    if kind == "arrow":
        return pa.ipc.new_file(str(path), _SCHEMA)
    from pyarrow import parquet

    return parquet.ParquetWriter(str(path), _SCHEMA, compression="zstd")


def _batch(rows: list[dict[str, np.ndarray]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([_lists([row[name] for row in rows]) for name in _COLUMNS], schema=_SCHEMA)


def _lists(parts: list[np.ndarray]) -> pa.ListArray:
    offsets = np.zeros(len(parts) + 1, np.int32)
    np.cumsum([len(part) for part in parts], out=offsets[1:])
    return pa.ListArray.from_arrays(column(offsets), column(np.concatenate(parts).astype(np.int32, copy=False)), type=_SCHEMA.types[0])

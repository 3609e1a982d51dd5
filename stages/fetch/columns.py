"""Rows of Parquet and Arrow files, a few at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import RegrowError
from stages.fetch.json_rows import NumberedLine
from stages.fetch.values import to_line

_BUFFER = 2**20
_BATCH_BYTES = 2**22
_BATCH_ROWS = 1024
_CONTINUES = b"\xff" * 4
"""Begins every message of a stream since Arrow 0.15. One of length 0 ends it."""


def parquet_rows(path: Path, label: str) -> Iterator[NumberedLine]:
    """Rows of a Parquet file. Columns are read through small buffers, not a row group at once.

    Raises:
        RegrowError: it is damaged, or holds values that no JSON can stand for.
    """
    from pyarrow.parquet import ParquetFile

    with _explained(label, "Parquet"), ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False) as file:
        size = sum(file.metadata.row_group(group).total_byte_size for group in range(file.num_row_groups))
        batches = file.iter_batches(batch_size=_rows_per_batch(size, file.metadata.num_rows), use_threads=False)
        yield from _numbered(batches)


def parquet_count(path: Path, label: str) -> int:
    """Rows of a Parquet file, by its footer."""
    from pyarrow.parquet import ParquetFile

    with _explained(label, "Parquet"), ParquetFile(path) as file:
        return int(file.metadata.num_rows)


def arrow_rows(path: Path, label: str) -> Iterator[NumberedLine]:
    """Rows of an Arrow IPC file or stream. It is read and not mapped, so that memory is that of one batch.

    Raises:
        RegrowError: it is damaged, or holds values that no JSON can stand for.
    """
    import pyarrow as pa

    with _explained(label, "Arrow"), pa.OSFile(str(path)) as source:
        if source.read(6) == b"ARROW1":
            file = pa.ipc.open_file(source)
            batches = (file.get_batch(index) for index in range(file.num_record_batches))
            yield from _numbered(_valid(batches))
        else:
            _require_end(source)
            source.seek(0)
            yield from _numbered(_valid(iter(pa.ipc.open_stream(source))))


def _require_end(source: Any) -> None:
    """A stream that was cut between two batches reads like a shorter one, except that the mark of its end is missing."""
    source.seek(0)
    start = source.read(4)
    source.seek(max(0, source.size() - 8))
    if start == _CONTINUES and source.read(8) != _CONTINUES + bytes(4):
        raise ValueError("the stream does not end; it may be cut")


def _valid(batches: Iterator[Any]) -> Iterator[Any]:
    """Arrow takes lengths and offsets from the file as they are. Wrong ones would read other memory, or end the process without a word."""
    for batch in batches:
        batch.validate(full=True)
        yield batch


def _numbered(batches: Iterator[Any]) -> Iterator[NumberedLine]:
    number = 0
    for batch in batches:
        if len(set(batch.schema.names)) < len(batch.schema.names):
            raise ValueError("two columns have the same name")
        step = _rows_per_batch(batch.nbytes, batch.num_rows)
        for start in range(0, batch.num_rows, step):
            for row in batch.slice(start, step).to_pylist(maps_as_pydicts="lossy"):
                yield number, to_line(row)
                number += 1


def _rows_per_batch(size: int, rows: int) -> int:
    """As many as make a few megabytes: a row may be a sentence or a book."""
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES * rows // max(size, 1)))


@contextmanager
def _explained(label: str, format_name: str) -> Iterator[None]:
    from pyarrow import ArrowException

    try:
        yield
    except (ArrowException, OSError, TypeError, ValueError, KeyError, OverflowError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise RegrowError(
            f"{label} cannot be read as {format_name}: {reason}.", "Download or write it again; its rows must hold JSON-like values."
        ) from None

"""Writes the rows that are taken, and the numbers they have at their source."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfile

from pipeline.options.views import FetchOptions
from pipeline.progress import Progress
from stages.fetch.formats import RowFile
from stages.fetch.json_rows import NumberedLine

_NUMBER = struct.Struct("<q")
_CHUNK = 2**20
_TOLD_EVERY = 4096


@dataclass
class Budget:
    """How many bytes of rows a run can train at most, and how many are taken already.

    A row counts for at most ``row_bytes``: what is longer is cut or dropped later.
    """

    total: int
    row_bytes: int | None
    taken: int = 0

    @classmethod
    def of(cls, options: FetchOptions) -> Budget | None:
        """The budget of a streamed dataset; None where all rows are taken."""
        return None if options.stream_bytes is None else cls(options.stream_bytes, options.stream_row_bytes)

    @property
    def is_spent(self) -> bool:
        """Whether there are enough rows."""
        return self.taken >= self.total

    def within(self, rows: Iterable[NumberedLine]) -> Iterator[NumberedLine]:
        """The rows, until there are enough."""
        for number, line in rows:
            if self.is_spent:
                return
            self.taken += len(line) if self.row_bytes is None else min(len(line), self.row_bytes)
            yield number, line


@dataclass(frozen=True)
class Written:
    """A file of rows inside data/raw, and that of their numbers; None where a row's number is its line."""

    rows_file: str
    numbers: str | None


class RowWriter:
    """Writes files of rows to ``folder/slot``, numbered in order. ``rows`` counts those that were written one by one."""

    def __init__(self, folder: Path, slot: str, progress: Progress) -> None:
        self._folder, self._slot, self._progress = folder, slot, progress
        self._files = self.rows = 0
        (folder / slot).mkdir(parents=True, exist_ok=True)

    def write_all(self, file: RowFile) -> Written | None:
        """Every row of a file; JSON Lines byte for byte, blank and malformed lines too. None: it holds no rows."""
        target = self._target(".jsonl")
        if file.format != "jsonl":
            return self._kept(self._write(target, None, file.rows()), numbered=False)
        copyfile(file.path, target)
        return self._kept(_has_text(target), numbered=False)

    def write_some(self, rows: Iterable[NumberedLine]) -> Written | None:
        """These rows, with their numbers. None: there are none."""
        return self._kept(self._write(self._target(".jsonl"), self._target(".numbers"), rows), numbered=True)

    def _target(self, suffix: str) -> Path:
        return self._folder / self._slot / f"{self._files:05d}{suffix}"

    def _write(self, target: Path, numbers_target: Path | None, rows: Iterable[NumberedLine]) -> bool:
        count = 0
        with (
            target.open("wb", buffering=_CHUNK) as lines,
            numbers_target.open("wb", buffering=_CHUNK) if numbers_target else nullcontext() as numbers,
            self._progress.task(f"rows of {self._slot}", unit="rows") as task,
        ):
            for number, line in rows:
                lines.write(line)
                lines.write(b"\n")
                if numbers is not None:
                    numbers.write(_NUMBER.pack(number))
                count += 1
                if count % _TOLD_EVERY == 0:
                    task.advance(_TOLD_EVERY)
            task.advance(count % _TOLD_EVERY)
        self.rows += count
        return count > 0

    def _kept(self, has_rows: bool, *, numbered: bool) -> Written | None:
        if not has_rows:
            for suffix in (".jsonl", ".numbers"):
                self._target(suffix).unlink(missing_ok=True)
            return None
        rows, numbers = (f"{self._slot}/{self._files:05d}{suffix}" for suffix in (".jsonl", ".numbers"))
        self._files += 1
        return Written(rows, numbers if numbered else None)


def _has_text(path: Path) -> bool:
    with path.open("rb") as stream:
        return any(chunk.strip() for chunk in iter(lambda: stream.read(_CHUNK), b""))

"""Rows of every dataset entry, into data/raw as JSON Lines."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import compress
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.artifact import Draft
from pipeline.data_files import is_builder
from pipeline.errors import RegrowError
from pipeline.options.datasets import FetchedDataset
from pipeline.options.views import FetchOptions
from stages.fetch.folder import Folder, Layout
from stages.fetch.formats import RowFile, open_rows
from stages.fetch.locate import Locator, Wanted, listed
from stages.fetch.named import open_named
from stages.fetch.parts import Part, layout_of, parts_of, unused
from stages.fetch.selection import is_random, random_part
from stages.fetch.writing import Budget, RowWriter, Written


def write_rows(options: FetchOptions, locator: Locator, raw: Draft) -> int:
    """Write the rows of every entry of `datasets`, `test_datasets` and `dedupe.against`; returns their bytes."""
    sources: list[dict[str, Any]] = []
    lists = {
        "train": ("pretraining_dataset" if options.pretraining_dataset else "datasets", options.datasets),
        "test": ("test_datasets", options.test_datasets or []),
        "against": ("dedupe.against", options.dedupe.against or []),
    }
    for split, (name, entries) in lists.items():
        for number, entry in enumerate(entries):
            rows = SourceRows(entry, f"{name}[{number}]", split, f"{split}-{number:02d}", options, locator, raw.path)
            sources += rows.write()
    raw.describe(sources=sources)
    return sum((raw.path / source["rows_file"]).stat().st_size for source in sources)


class SourceRows:
    """The rows of one entry (``option``, for messages) on their way into ``folder/slot``."""

    def __init__(
        self, entry: FetchedDataset, option: str, split: str, slot: str, options: FetchOptions, locator: Locator, folder: Path
    ) -> None:
        self._entry, self._option, self._split, self._options, self._locator = entry, option, split, options, locator
        place = option if split == "bench" else f"{option}.path"
        self._label = f"{place} {entry.path!r}"
        self._default = "train" if split == "train" else "test"
        wanted = Wanted(place, slot, entry.path, "dataset", entry.revision, None if split == "bench" else f"{option}.revision")
        self._layout: Layout | None = None
        self._format: str | None = entry.ds_type
        if entry.data_files is not None and is_builder(entry.path, entry.data_files):
            self._format = entry.path
            self._source, self._layout = open_named(entry.data_files, wanted, locator)
        else:
            self._source = locator.open(wanted)
        self._writer = RowWriter(folder, slot, locator.progress)
        self._budget = Budget.of(options) if split == "train" else None

    def write(self) -> list[dict[str, Any]]:
        """Write them all; what the manifest says of each file."""
        names = self._entry.name if isinstance(self._entry.name, list) else [self._entry.name]
        sources = [source for name in names for source in self._configuration(name)]
        if not sources:
            raise RegrowError(f"{self._label} holds no rows{self._selection()}.", "Give rows, or leave the entry out.")
        if self._budget is not None:
            self._tell_budget(self._budget)
        return sources

    def _configuration(self, name: str | None) -> Iterator[dict[str, Any]]:
        folder = Folder(self._source.names, self._source.path, self._label)
        layout = self._layout or layout_of(self._entry, name, folder, self._option)
        parts = parts_of(self._entry, layout, self._default, self._count, self._option)
        self._tell_unused(layout)
        flags = self._flags(parts)
        for part in parts:
            for file_name in part.files:
                if part.is_over or (self._budget is not None and self._budget.is_spent):
                    break
                written = self._write_file(self._open(file_name), part, flags)
                if written is not None:
                    yield self._record(file_name, written)

    def _flags(self, parts: list[Part]) -> Iterator[bool] | None:
        """Which rows of all parts together the random part takes; None where all are taken."""
        if not is_random(self._entry):
            return None
        assert self._options.rows_seed is not None
        return iter(random_part(sum(part.size(self._count) for part in parts), self._entry, self._options.rows_seed))

    def _write_file(self, file: RowFile, part: Part, flags: Iterator[bool] | None) -> Written | None:
        if part.is_whole and flags is None and self._budget is None:
            return self._writer.write_all(file)
        rows = part.within(file.rows())
        rows = rows if flags is None else compress(rows, flags)
        return self._writer.write_some(rows if self._budget is None else self._budget.within(rows))

    def _open(self, name: str) -> RowFile:
        label = self._label if name == PurePosixPath(self._entry.path).name else f"{self._label} ({name})"
        return open_rows(self._source.path(name), name, self._format, label, self._locator.scratch / "unpacked")

    def _count(self, name: str) -> int:
        return self._open(name).count()

    def _record(self, name: str, written: Written) -> dict[str, Any]:
        return {
            "name": self._source.wanted.slot,
            "split": self._split,
            "path": self._entry.path,
            "file": name,
            "rows_file": written.rows_file,
            "numbers": written.numbers,
            "revision": self._source.revision,
        }

    def _selection(self) -> str:
        found = {key: getattr(self._entry, key) for key in ("split", "skip", "shards", "weight")}
        chosen = ", ".join(f"{key} {value!r}" for key, value in found.items() if value)
        return f" that {chosen} would take" if chosen else ""

    def _tell_unused(self, layout: Layout) -> None:
        """What is not trained on should be known."""
        taken, rest = unused(self._entry, layout, self._default)
        if rest and self._split == "train":
            self._locator.say(
                f"{self._option}: training on {listed(taken)} and not on {listed(rest)}; split or data_files choose otherwise."
            )

    def _tell_budget(self, budget: Budget) -> None:
        what = f"{self._writer.rows} rows"
        if budget.is_spent:
            self._locator.say(
                f"{self._label}: took the first {what}, {budget.taken} bytes: max_steps of one process can take no more, "
                "at 16 bytes a token. A larger max_steps takes more."
            )
        else:
            self._locator.say(f"{self._label}: took all {what}; max_steps may go over them more than once.")

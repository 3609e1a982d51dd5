"""From a dataset entry to the rows of its files that are taken, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipeline.errors import RegrowError
from pipeline.options.datasets import FetchedDataset
from pipeline.source import is_glob
from pipeline.splits import Slice, parse_split
from stages.fetch.folder import Folder, Layout
from stages.fetch.json_rows import NumberedLine
from stages.fetch.layout import ONLY, lay_out, named_one_by_one

Count = Callable[[str], int]
"""Rows of a file, by its name."""


@dataclass
class Part:
    """Consecutive rows of one split: of all its files together, from ``start`` on (``stop`` None: to the end)."""

    files: Sequence[str]
    start: int = 0
    stop: int | None = None
    at: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether every row is taken."""
        return self.start == 0 and self.stop is None

    @property
    def is_over(self) -> bool:
        """Whether the rows of further files are beyond it."""
        return self.stop is not None and self.at >= self.stop

    def size(self, count: Count) -> int:
        """How many rows there are."""
        total = sum(count(file) for file in self.files)
        return max(min(total if self.stop is None else self.stop, total) - self.start, 0)

    def within(self, rows: Iterable[NumberedLine]) -> Iterator[NumberedLine]:
        """Of the rows of its next file those that belong to it."""
        for row in rows:
            if self.is_over:
                return
            self.at += 1
            if self.at > self.start:
                yield row


def layout_of(entry: FetchedDataset, configuration: str | None, folder: Folder, option: str) -> Layout:
    """The splits of an entry's source, and their files.

    Raises:
        RegrowError: what `name` or `data_files` ask for is not there, or nothing is.
    """
    if entry.data_files is not None:
        return named_one_by_one(folder, entry.data_files, entry.path, option)
    if not is_glob(entry.path) and not _is_file(entry.path, folder.names):
        return lay_out(folder, configuration, entry.ds_type)
    if configuration not in (None, ONLY):
        raise RegrowError(f"{option}.name is {configuration!r}, and {folder.label} is no folder.", f"Remove {option}.name.")
    return Layout({"train": folder.names}, told=False)


def _is_file(path: str, names: Sequence[str]) -> bool:
    """Whether a source is one file, which is taken whatever its name says, and no folder that holds one."""
    return len(names) == 1 and path.partition("#")[0].partition("?")[0].endswith(names[0])


def parts_of(entry: FetchedDataset, layout: Layout, default: str, count: Count, option: str) -> list[Part]:
    """What `split` and `skip` take. ``default`` is the split where the entry names none."""
    slices = parse_split(entry.split) if entry.split else (Slice(_default(layout, default, option)),)
    parts = [_part(item, layout.splits[name], count) for item in slices for name in _names(item, layout.splits, option)]
    left = entry.skip or 0
    for part in parts if left else ():
        taken = min(left, part.size(count))
        part.start, left = part.start + taken, left - taken
    return parts


def unused(entry: FetchedDataset, layout: Layout, default: str) -> tuple[list[str], list[str]]:
    """Files that are taken, and files of rows that are not because the entry does not name their split."""
    if entry.split:
        return [], []
    taken = list(layout.splits.get(default, layout.splits.get("train", ())))
    others = [file for files in layout.splits.values() for file in files if file not in taken]
    return taken, [*others, *layout.unused]


def _default(layout: Layout, default: str, option: str) -> str:
    if default in layout.splits:
        return default
    if not layout.told:
        return "train"
    if not layout.splits:
        raise RegrowError(f"{option} has no files of rows.", f"Name them in {option}.data_files.")
    raise RegrowError(f"{option} has the splits {', '.join(layout.splits)} and no {default}.", f"Choose with {option}.split.")


def _names(item: Slice, splits: Mapping[str, object], option: str) -> list[str]:
    if item.name == "all":
        return list(splits)
    if item.name not in splits:
        raise RegrowError(f"{option}.split: there is no split {item.name!r}.", f"There are {', '.join(splits)}.")
    return [item.name]


def _part(item: Slice, files: Sequence[str], count: Count) -> Part:
    if item.needs_total:
        return Part(files, *item.bounds(sum(count(file) for file in files)))
    return Part(files, item.start or 0, item.stop)

"""Which format a file of rows has, and what reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipeline.errors import RegrowError
from stages.fetch.columns import arrow_rows, parquet_count, parquet_rows
from stages.fetch.json_rows import NumberedLine, is_lines, item_rows, line_rows
from stages.fetch.packed import bare_name, compression, unpacked
from stages.fetch.text_rows import csv_rows, text_rows

Reader = Callable[[Path, str], Iterator[NumberedLine]]

_READERS: dict[str, Reader] = {
    "json": item_rows,
    "jsonl": line_rows,
    "csv": csv_rows,
    "parquet": parquet_rows,
    "arrow": arrow_rows,
    "text": text_rows,
}
_SUFFIXES = {
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".csv": "csv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".txt": "text",
}
WORKS = (
    "These work: .jsonl, .json (an array, or an object per line), .csv, .parquet, .arrow, .txt, each also as .gz or .zst; "
    "for another suffix set ds_type: json, csv, parquet, arrow or text."
)

# First bytes of what is often named like something else. (An Arrow stream has no magic of its own.)
_OTHERS = {b"PAR1": "parquet", b"ARROW1": "arrow", b"PK\x03\x04": "zip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"SQLite": "sqlite"}
_NO_ROWS = {b"version https://git-lfs": "a Git LFS pointer", b"<!doctype html": "a web page", b"<html": "a web page"}
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_TEXTS = frozenset({"json", "jsonl", "csv", "text"})


@dataclass(frozen=True)
class RowFile:
    """A file of rows, unpacked.

    Attributes:
        format: ``jsonl`` when its lines are the rows already, or json, csv, parquet, arrow, text.
        label: the file as messages name it.
    """

    path: Path
    format: str
    label: str

    def rows(self) -> Iterator[NumberedLine]:
        """Every row with its number, in order; blank lines of JSON Lines are no rows but have a number."""
        return _READERS[self.format](self.path, self.label)

    def count(self) -> int:
        """How many rows there are."""
        return parquet_count(self.path, self.label) if self.format == "parquet" else sum(1 for _ in self.rows())


def format_named(name: str) -> str | None:
    """The format that a file's suffix says, compression aside."""
    return _SUFFIXES.get(PurePosixPath(bare_name(name)).suffix.lower())


def open_rows(path: Path, name: str, ds_type: str | None, label: str, scratch: Path) -> RowFile:
    """A source file as rows, by ``ds_type`` or else by its suffix.

    Args:
        name: at the source, where its suffix is.
        scratch: where a compressed file is unpacked.

    Raises:
        RegrowError: no reader for it, damaged, or plainly of another format.
    """
    kind = format_named(name) if ds_type is None else ds_type
    if kind is None:
        raise RegrowError(f"{label} has a suffix that no reader is for.", WORKS)
    plain = unpacked(path, name, label, scratch)
    _check_start(plain, kind, label)
    if kind in ("json", "jsonl"):
        kind = "jsonl" if is_lines(plain) else "json"
    return RowFile(plain, kind, label)


def _check_start(path: Path, kind: str, label: str) -> None:
    with path.open("rb") as stream:
        start = stream.read(32)
    found = compression(start) or next((other for magic, other in _OTHERS.items() if start.startswith(magic)), kind)
    for magic, what in _NO_ROWS.items():
        if start.lower().startswith(magic):
            raise RegrowError(f"{label} is {what} and not {kind}.", "Download the file itself; in a Git clone, run `git lfs pull`.")
    if kind in _TEXTS and found == kind and (start.startswith(_UTF_16) or b"\0" in start):
        raise RegrowError(f"{label} is UTF-16 text, or no text.", "Save it as UTF-8.")
    if found != kind:
        remedy = f"Write `ds_type: {found}`, or name the file so." if found in _READERS else WORKS
        raise RegrowError(f"{label} is read as {kind}, and it is a {found} file.", remedy)

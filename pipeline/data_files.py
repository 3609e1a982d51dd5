"""What a dataset entry's `data_files` names: one pattern, several, or some for each split.

Text in, values out: nothing here looks at a disk or a network.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.source import BUILDERS

DataFiles = str | list[str] | dict[str, str | list[str]]

_FIRST = ("train", "validation", "test")


@dataclass(frozen=True)
class NamedFiles:
    """One text of `data_files` that is a source of its own.

    Attributes:
        number: its place among all of them, from 0; also the folder in which its files are linked.
    """

    number: int
    split: str
    text: str


def is_builder(path: str, files: DataFiles | None) -> bool:
    """Whether an entry names a format and its files (``path: json``), as opposed to a source and files of it."""
    return files is not None and path in BUILDERS


def named_files(files: DataFiles) -> list[NamedFiles]:
    """Each text of `data_files`, by split and in their order there."""
    pairs = [(split, text) for split, texts in by_split(files).items() for text in texts]
    return [NamedFiles(number, split, text) for number, (split, text) in enumerate(pairs)]


def by_split(files: DataFiles) -> Mapping[str, Sequence[str]]:
    """Texts by split, which is `train` where none is named. The order in which splits are written has no meaning."""
    given = files if isinstance(files, dict) else {"train": files}
    return {split: [texts] if isinstance(texts := given[split], str) else texts for split in in_order(given)}


def in_order(splits: Iterable[str]) -> list[str]:
    """The usual splits as they follow each other, then others by name."""
    return sorted(splits, key=lambda split: (*(split != usual for usual in _FIRST), split))

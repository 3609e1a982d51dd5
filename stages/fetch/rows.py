"""Dataset files as they came, byte for byte, into ``data/raw``."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from shutil import copyfile
from typing import Any

from pipeline.artifact import Draft
from pipeline.errors import RegrowError
from pipeline.options.datasets import DatasetSource
from pipeline.options.views import FetchOptions
from stages.fetch.locate import Choose, Located, Locator, Wanted, listed

_FORMATS = {".jsonl": "jsonl", ".json": "json"}
_TRAIN = re.compile(r"(?<![a-z])train(ing)?(?![a-z])")
_METADATA = frozenset({"dataset_infos.json", "dataset_info.json", "package.json", "config.json"})


def write_rows(options: FetchOptions, locator: Locator, raw: Draft) -> int:
    """Copy the files of every entry of `datasets` and `test_datasets`; returns their bytes."""
    sources: list[dict[str, Any]] = []
    for split, entries in (("train", options.datasets), ("test", options.test_datasets or [])):
        for number, entry in enumerate(entries):
            option = f"{'datasets' if split == 'train' else 'test_datasets'}[{number}]"
            wanted = Wanted(f"{option}.path", f"{split}-{number:02d}", entry.path, "dataset", entry.revision, f"{option}.revision")
            located = locator.locate(wanted, chooser(entry, option, locator.say if split == "train" else None))
            sources += [_copy(located, name, split, entry, raw.path / wanted.slot) for name in located.files]
    raw.describe(sources=sources)
    return sum((raw.path / source["name"] / source["file"]).stat().st_size for source in sources)


def _copy(located: Located, name: str, split: str, entry: DatasetSource, folder: Path) -> dict[str, Any]:
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    copyfile(located.root / name, target)
    return {
        "name": located.wanted.slot,
        "split": split,
        "path": entry.path,
        "file": name,
        "format": entry.ds_type or _FORMATS[target.suffix.lower()],
        "revision": located.revision,
    }


def chooser(entry: DatasetSource, option: str, say: Callable[[str], None] | None) -> Choose:
    """Which files of a source are rows: those that `data_files` names, or else all of a format that is known.

    With ``say``, for training: where file names tell splits apart, as on the hub, the training files alone. A test file
    must not be trained on.
    """
    patterns = [entry.data_files] if isinstance(entry.data_files, str) else entry.data_files

    def choose(names: Sequence[str]) -> list[str]:
        if patterns:
            chosen = _matching(names, patterns, option)
        elif len(names) == 1:
            chosen = list(names)
        else:
            chosen = [name for name in names if _is_rows(name)]
            if say is not None and (training := [name for name in chosen if _TRAIN.search(name.lower())]) and training != chosen:
                rest = [name for name in chosen if name not in training]
                say(f"{option}: training on {listed(training)} and not on {listed(rest)}; data_files chooses otherwise.")
                chosen = training
        _check_formats(chosen, names, entry, option)
        return chosen

    return choose


def _matching(names: Sequence[str], patterns: Sequence[str], option: str) -> list[str]:
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise RegrowError(f"{option}.data_files: no file matches {pattern!r}.", f"There are {listed(names)}.")
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


def _is_rows(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in _FORMATS and path.name not in _METADATA and not path.name.startswith(".")


def _check_formats(chosen: Sequence[str], names: Sequence[str], entry: DatasetSource, option: str) -> None:
    if not chosen:
        raise RegrowError(
            f"{option}.path {entry.path!r} has no .jsonl or .json file of rows.",
            f"There are {listed(names)}. Name the right ones in data_files, with ds_type if their suffix does not say json or jsonl.",
        )
    for name in chosen:
        if entry.ds_type is None and PurePosixPath(name).suffix.lower() not in _FORMATS:
            raise RegrowError(
                f"{option}.path {entry.path!r}: {name} has a suffix that no reader is for.",
                "These work: .jsonl, .json (an array, or an object per line); for another suffix set ds_type: json or jsonl.",
            )

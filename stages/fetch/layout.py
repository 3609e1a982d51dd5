"""Which files of a source make which split, as the `datasets` library tells them apart.

In this order: files named one by one; a folder that ``save_to_disk`` wrote; the configurations in a README's header;
``data/<split>-00000-of-00001.*``; names of folders and then of files that hold train, validation or test; or else
everything is the split train.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

from pipeline.data_files import DataFiles, by_split, in_order
from pipeline.errors import RegrowError
from stages.fetch.card import chosen_files, configurations
from stages.fetch.folder import Folder, Layout, matching, plain
from stages.fetch.formats import WORKS, format_named
from stages.fetch.locate import listed
from stages.fetch.saved import saved_layout

_KEYWORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SPLIT_IN_NAME = {
    split: re.compile(rf"(?:^|[-._ 0-9])(?:{'|'.join(words)})(?:$|[-._ 0-9])", re.IGNORECASE) for split, words in _KEYWORDS.items()
}
ONLY = "default"
"""What `datasets` calls the configuration of a source that has no others."""

_SHARD = re.compile(r"data/(\w+(?:\.\w+)*)-[0-9]{5}-of-[0-9]{5}[^/]*\.[^/]*")
_METADATA = frozenset({"dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json", "package.json", "config.json"})
_FORMATS = ("parquet", "json", "csv", "arrow", "text")


def lay_out(folder: Folder, configuration: str | None, ds_type: str | None) -> Layout:
    """The splits of a folder, repository or bucket, of one of its configurations when it has some.

    Raises:
        RegrowError: there is no such configuration, it must be chosen, or there are no rows.
    """
    if configuration == ONLY and not folder.under(f"{ONLY}/") and not configurations(folder):
        configuration = None
    start = f"{configuration}/" if configuration else ""
    for place in dict.fromkeys((start, "")):
        if (saved := saved_layout(folder, place)) is not None:
            return saved
    if (card := configurations(folder)) is not None and (configuration is None or configuration in card or not folder.under(start)):
        start, named = chosen_files(folder, card, configuration)
        return named or _by_names(folder, start, ds_type)
    if configuration and not folder.under(start):
        raise RegrowError(f"{folder.label} has no configuration {configuration!r}.", f"There are {listed(folder.names)}.")
    return _by_names(folder, start, ds_type)


def named_one_by_one(folder: Folder, files: DataFiles, path: str, option: str) -> Layout:
    """What `data_files` names of the source ``path``, for each split or all for the split train.

    Raises:
        RegrowError: a pattern matches nothing.
    """
    start = plain(path.rstrip("/")) + "/"  # Axolotl takes data_files of a local folder from where it is started
    what = f"{option}.data_files"
    splits = {
        split: matching(folder.names, [plain(pattern).removeprefix(start) for pattern in patterns], what)
        for split, patterns in by_split(files).items()
    }
    return Layout(splits, told=isinstance(files, dict))


def _by_names(folder: Folder, start: str, ds_type: str | None) -> Layout:
    names, unused = _of_one_format([name for name in folder.under(start) if _is_data(name[len(start) :])], ds_type)
    if not names:
        raise RegrowError(f"{folder.label} has no file of rows (there are {listed(folder.names)}).", _remedy(folder))
    for tell in (_by_shards, _by_folders, _by_file_names):
        splits: dict[str, list[str]] = {}
        for name in names:
            if (split := tell(name[len(start) :])) is not None:
                splits.setdefault(split, []).append(name)
        if splits:
            told = {name for files in splits.values() for name in files}
            rest = tuple(name for name in names if name not in told)
            return Layout({split: tuple(splits[split]) for split in in_order(splits)}, unused=(*rest, *unused))
    return Layout({"train": tuple(names)}, told=False, unused=unused)


def _is_data(name: str) -> bool:
    path = PurePosixPath(name)
    return path.name not in _METADATA and path.name.lower() != "readme.md" and not any(part.startswith((".", "__")) for part in path.parts)


def _of_one_format(names: Sequence[str], ds_type: str | None) -> tuple[list[str], tuple[str, ...]]:
    """Files of `ds_type`, or of the format that most of them have: the rest may be the same rows once more, or none at all."""
    formats = Counter(kind for name in names if (kind := format_named(name)) is not None)
    wanted = "json" if ds_type == "jsonl" else ds_type
    if wanted is None and formats:
        wanted = max(_FORMATS, key=lambda kind: (formats[kind], -_FORMATS.index(kind)))
    chosen = [name for name in names if wanted is not None and format_named(name) == wanted]
    if ds_type is not None and not chosen:
        chosen = list(names)
    return chosen, tuple(name for name in names if name not in chosen and format_named(name) is not None)


def _remedy(folder: Folder) -> str:
    if any(name.endswith(".py") for name in folder.names):
        return (
            "It has a script that makes its rows, which is not run. On the hub, `revision: refs/convert/parquet` often holds them as files."
        )
    return f"Name the right ones in data_files. {WORKS}"


def _by_shards(name: str) -> str | None:
    match = _SHARD.fullmatch(name)
    return match[1] if match else None


def _by_folders(name: str) -> str | None:
    found = [split for part in PurePosixPath(name).parts[:-1] if (split := _split_named(part)) is not None]
    return found[-1] if found else None


def _by_file_names(name: str) -> str | None:
    return _split_named(PurePosixPath(name).name)


def _split_named(part: str) -> str | None:
    """The split that a name tells; one that tells two (``train_test``) tells none."""
    found = [split for split, pattern in _SPLIT_IN_NAME.items() if pattern.search(part)]
    return found[0] if len(found) == 1 else None

"""Which files of a source make which split, as the `datasets` library tells them apart.

In this order: files named one by one; a folder that ``save_to_disk`` wrote; the configurations in a README's header;
``data/<split>-00000-of-00001.*``; names of folders and then of files that hold train, validation or test; or else
everything is the split train.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.errors import RegrowError
from stages.fetch.formats import WORKS, format_named
from stages.fetch.locate import listed

_KEYWORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SPLIT_IN_NAME = {
    split: re.compile(rf"(?:^|[-._ 0-9])(?:{'|'.join(words)})(?:$|[-._ 0-9])", re.IGNORECASE) for split, words in _KEYWORDS.items()
}
_SHARD = re.compile(r"data/(\w+(?:\.\w+)*)-[0-9]{5}-of-[0-9]{5}[^/]*\.[^/]*")
_METADATA = frozenset({"dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json", "package.json", "config.json"})
_FORMATS = ("parquet", "json", "csv", "arrow", "text")


@dataclass(frozen=True)
class Layout:
    """Files by split.

    Attributes:
        splits: names of files, in the order of their rows.
        told: whether the source itself tells its splits apart; if not, all files are the split train.
        unused: files of rows that belong to no split.
    """

    splits: Mapping[str, tuple[str, ...]]
    told: bool = True
    unused: tuple[str, ...] = ()


@dataclass(frozen=True)
class Folder:
    """A source with several files: their names, what reads one of them, and how messages name it."""

    names: tuple[str, ...]
    read: Callable[[str], Path]
    label: str

    def text(self, name: str) -> str:
        return self.read(name).read_text(encoding="utf-8-sig", errors="replace")

    def under(self, start: str) -> tuple[str, ...]:
        return tuple(name for name in self.names if name.startswith(start))


def lay_out(folder: Folder, configuration: str | None, ds_type: str | None) -> Layout:
    """The splits of a folder, repository or bucket, of one of its configurations when it has some.

    Raises:
        RegrowError: there is no such configuration, it must be chosen, or there are no rows.
    """
    start = f"{configuration}/" if configuration else ""
    for place in dict.fromkeys((start, "")):
        if f"{place}dataset_dict.json" in folder.names:
            return Layout({name: _saved(folder, f"{place}{name}/") for name in _json(folder, f"{place}dataset_dict.json")["splits"]})
        if f"{place}state.json" in folder.names:
            return Layout({"train": _saved(folder, place)}, told=False)
    if (card := _configurations(folder)) is not None and (configuration is None or configuration in card or not folder.under(start)):
        return _of_card(folder, _chosen(folder, card, configuration), ds_type)
    if configuration and not folder.under(start):
        raise RegrowError(f"{folder.label} has no configuration {configuration!r}.", f"There are {listed(folder.names)}.")
    return _by_names(folder, start, ds_type)


def named_one_by_one(folder: Folder, patterns: Sequence[str], option: str) -> Layout:
    """What `data_files` names: all of it is the split train.

    Raises:
        RegrowError: a pattern matches nothing.
    """
    return Layout({"train": _matching(folder.names, patterns, f"{option}.data_files")}, told=False)


def _matching(names: Sequence[str], patterns: Sequence[str], what: str) -> tuple[str, ...]:
    """In the order of the patterns: ``*`` and ``?`` stay inside a folder, ``**`` does not."""
    found: dict[str, None] = {}
    for pattern in patterns:
        matches = [name for name in names if _glob(pattern).fullmatch(name)]
        if not matches:
            raise RegrowError(f"{what}: no file matches {pattern!r}.", f"There are {listed(names)}.")
        found |= dict.fromkeys(matches)
    return tuple(found)


def _glob(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]]+\])", pattern.removeprefix("./").rstrip("/") + ("/**" if pattern.endswith("/") else ""))
    wild = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile(
        "".join(wild.get(part) or (part if part.startswith("[") and part.endswith("]") else re.escape(part)) for part in parts)
    )


def _saved(folder: Folder, start: str) -> tuple[str, ...]:
    """The Arrow files of a dataset that ``save_to_disk`` wrote, in order."""
    files = _json(folder, f"{start}state.json").get("_data_files", [])
    names = tuple(f"{start}{file['filename']}" for file in files)
    if gone := [name for name in names if name not in folder.names]:
        raise RegrowError(f"{folder.label} has no {listed(gone)}, which its {start}state.json names.", "Save or download it again.")
    return names


def _json(folder: Folder, name: str) -> dict[str, Any]:
    try:
        value = json.loads(folder.text(name)) if name in folder.names else {}
    except ValueError as error:
        raise RegrowError(f"{folder.label}: {name} is not valid JSON: {error}.", "Save or download it again.") from None
    if not isinstance(value, dict):
        raise RegrowError(f"{folder.label}: {name} is not a JSON object.", "Save or download it again.")
    return value


def _configurations(folder: Folder) -> dict[str, dict[str, Any]] | None:
    """The `configs` in the header of a README, by name."""
    if "README.md" not in folder.names:
        return None
    from huggingface_hub import metadata_load

    try:
        header = metadata_load(folder.read("README.md"))
    except Exception as error:  # YAML's own errors, whose parser the library chooses
        reason = str(error).strip().splitlines()[0]
        raise RegrowError(f"{folder.label}: the header of its README.md cannot be read: {reason}", "Name files in data_files.") from None
    found = header.get("configs") if isinstance(header, dict) else None
    configs = [config for config in found if isinstance(config, dict)] if isinstance(found, list) else []
    return {str(config["config_name"]): config for config in configs if "config_name" in config} or None


def _chosen(folder: Folder, card: dict[str, dict[str, Any]], name: str | None) -> dict[str, Any]:
    default = [key for key, config in card.items() if len(card) == 1 or key == "default" or config.get("default")]
    if name is None and default:
        return card[default[0]]
    if name not in card:
        problem = f"has no configuration {name!r}" if name else "has several configurations"
        raise RegrowError(f"{folder.label} {problem}.", f"Set `name` to one of {', '.join(card)}, or to a list of them.")
    return card[name]


def _of_card(folder: Folder, config: dict[str, Any], ds_type: str | None) -> Layout:
    start = f"{str(config['data_dir']).strip('/')}/" if config.get("data_dir") else ""
    files = config.get("data_files")
    if files is None:
        return _by_names(folder, start, ds_type)
    items = files if isinstance(files, list) else [files]
    by_split: dict[str, list[str]] = {}
    for item in items:
        split, paths = (item["split"], item["path"]) if isinstance(item, dict) and {"split", "path"} <= item.keys() else ("train", item)
        by_split.setdefault(str(split), []).extend(start + str(path) for path in (paths if isinstance(paths, list) else [paths]))
    return Layout({split: _matching(folder.names, patterns, f"{folder.label}: its README.md") for split, patterns in by_split.items()})


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
            ordered = sorted(splits, key=lambda split: (*(split != usual for usual in _KEYWORDS), split))
            return Layout({split: tuple(splits[split]) for split in ordered}, unused=(*rest, *unused))
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

"""Configurations of a dataset in the header of its README, by which the hub and `datasets` know its files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.errors import RegrowError
from stages.fetch.folder import Folder, Layout, matching

_READING = frozenset({"sep", "delimiter", "names", "column_names", "header", "skiprows", "quotechar", "encoding", "field", "sample_by"})
"""Keys with which a configuration changes how files become rows."""


def configurations(folder: Folder) -> dict[str, dict[str, Any]] | None:
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


def _chosen(folder: Folder, card: Mapping[str, dict[str, Any]], name: str | None) -> dict[str, Any]:
    default = [key for key, config in card.items() if len(card) == 1 or key == "default" or config.get("default")]
    if name is None and default:
        return card[default[0]]
    if name is None or name not in card:
        problem = f"has no configuration {name!r}" if name else "has several configurations"
        raise RegrowError(f"{folder.label} {problem}.", f"Set `name` to one of {', '.join(card)}, or to a list of them.")
    return card[name]


def chosen_files(folder: Folder, card: Mapping[str, dict[str, Any]], name: str | None) -> tuple[str, Layout | None]:
    """Of one configuration: the folder in which its files lie (``""`` or with a slash), and its splits where it names files.

    Raises:
        RegrowError: there is no such one, it must be chosen, or it is read in a way that rows are not read here.
    """
    config = _chosen(folder, card, name)
    if unread := sorted(_READING & config.keys()):
        remedy = "On the hub, `revision: refs/convert/parquet` often holds the rows as files; or convert them, and name the result."
        raise RegrowError(
            f"{folder.label}: its README.md sets {', '.join(unread)} for reading the files, which has no effect here.", remedy
        )
    start = f"{str(config['data_dir']).strip('/')}/" if config.get("data_dir") else ""
    return start, None if config.get("data_files") is None else _named(folder, config["data_files"], start)


def _named(folder: Folder, files: Any, start: str) -> Layout:
    by_split: dict[str, list[str]] = {}
    for item in files if isinstance(files, list) else [files]:
        split, paths = (item["split"], item["path"]) if isinstance(item, dict) and {"split", "path"} <= item.keys() else ("train", item)
        by_split.setdefault(str(split), []).extend(start + str(path) for path in (paths if isinstance(paths, list) else [paths]))
    return Layout({split: matching(folder.names, patterns, f"{folder.label}: its README.md") for split, patterns in by_split.items()})

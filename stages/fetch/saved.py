"""Datasets that ``save_to_disk`` of the `datasets` library wrote."""

from __future__ import annotations

from pipeline.errors import RegrowError
from stages.fetch.folder import Folder, Layout
from stages.fetch.locate import listed


def saved_layout(folder: Folder, start: str) -> Layout | None:
    """The splits of a saved dataset whose files begin with ``start``, or None.

    Raises:
        RegrowError: it is damaged, or a selection of rows is kept apart from them.
    """
    if f"{start}dataset_dict.json" in folder.names:
        return Layout({name: _saved(folder, f"{start}{name}/") for name in _splits(folder, f"{start}dataset_dict.json")})
    if f"{start}state.json" in folder.names:
        return Layout({"train": _saved(folder, start)}, told=False)
    return None


def _saved(folder: Folder, start: str) -> tuple[str, ...]:
    """The Arrow files of a dataset that ``save_to_disk`` wrote, in order."""
    state = folder.json(f"{start}state.json")
    if state.get("_indices_data_files"):
        raise RegrowError(
            f"{folder.label} holds a selection apart from its rows ({start}state.json).", "Save it again with a newer `datasets`."
        )
    files = state.get("_data_files", [])
    if not isinstance(files, list) or not all(isinstance(file, dict) and "filename" in file for file in files):
        raise RegrowError(f"{folder.label}: {start}state.json does not name its files.", "Save or download it again.")
    names = tuple(f"{start}{file['filename']}" for file in files)
    if gone := [name for name in names if name not in folder.names]:
        raise RegrowError(f"{folder.label} has no {listed(gone)}, which its {start}state.json names.", "Save or download it again.")
    return names


def _splits(folder: Folder, name: str) -> list[str]:
    splits = folder.json(name).get("splits")
    if not isinstance(splits, list) or not all(isinstance(split, str) for split in splits):
        raise RegrowError(f"{folder.label}: {name} does not name its splits.", "Save or download it again.")
    return splits

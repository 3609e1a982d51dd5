"""Files that `data_files` names for a format (``path: json``), each a source of its own: here, on the web, in a wheel."""

from __future__ import annotations

import posixpath
from dataclasses import replace
from pathlib import Path

from pipeline.data_files import DataFiles, named_files
from pipeline.source import glob_base
from stages.fetch.folder import Layout
from stages.fetch.locate import Locator, Opened, Wanted


def open_named(files: DataFiles, wanted: Wanted, locator: Locator) -> tuple[Opened, Layout]:
    """One source of all the files, named as params.yaml names them, and their splits.

    Raises:
        RegrowError: one is not there, or cannot be had.
    """
    found: dict[str, tuple[Opened, str]] = {}
    splits: dict[str, list[str]] = {}
    option = wanted.option.replace(".path", ".data_files")
    for item in named_files(files):
        opened = locator.open(replace(wanted, option=option, slot=f"{wanted.slot}/{item.number}", text=item.text))
        for name in opened.names:
            shown = _shown(item.text, name)
            shown = f"{shown} ({item.number})" if shown in found else shown
            found[shown] = opened, name
            splits.setdefault(item.split, []).append(shown)

    def path(shown: str) -> Path:
        opened, name = found[shown]
        return opened.path(name)

    layout = Layout({split: tuple(names) for split, names in splits.items()}, told=isinstance(files, dict))
    return Opened(wanted, locator.scratch, tuple(found), path), layout


def _shown(text: str, name: str) -> str:
    """A file as the manifest names it: without the digest and the query of an address, which may hold what is secret."""
    if "://" in text or text.startswith("pypi:"):
        text = text.partition("#")[0].partition("?")[0]
    place = text if posixpath.basename(text) == name and "**" not in text else f"{glob_base(text)[0]}/{name}"
    return place if "://" in place else posixpath.normpath(place)

"""The folder that `output_dir` names: links to what is shipped, for those who look where Axolotl would have put it."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.errors import RegrowError
from pipeline.project import Project

LINKED = ("trained", "merged", "quantized", "eval")
"""Artifacts that are linked. The others are steps on the way."""


def output_links(project: Project, output_dir: str | None) -> dict[Path, Path]:
    """Links to make, by place, each with the artifact it leads to. A link that is there already is among them.

    Raises:
        RegrowError: the folder is no place for links, or holds something else of the same name.
    """
    if output_dir is None or project.home != project:  # an experiment's copy is thrown away
        return {}
    folder = _folder(project, output_dir)
    links = {folder / name: project.data / name for name in LINKED}
    for link, target in links.items():
        if os.path.lexists(link) and not _leads_to(link, target):
            what = f"is a link to {link.readlink()}" if link.is_symlink() else "is there already"
            raise RegrowError(f"params.yaml: output_dir: {link} {what}; it would hold a link to {target}.", _REMEDY)
    return links


_REMEDY = "Name a folder of its own, such as ./outputs/my-run, or move that away."


def _folder(project: Project, output_dir: str) -> Path:
    try:
        folder = (project.root / Path(output_dir).expanduser()).resolve()
        is_other = folder.exists() and not folder.is_dir()
    except (RuntimeError, OSError, ValueError) as error:
        raise RegrowError(f"params.yaml: output_dir: {output_dir[:80]!r} is no path that can be looked at: {error}.", _REMEDY) from None
    if is_other:
        raise RegrowError(f"params.yaml: output_dir: {folder} is no folder.", _REMEDY)
    for own in (project.data.resolve(), project.scratch.resolve()):
        if folder.is_relative_to(own):
            raise RegrowError(f"params.yaml: output_dir: {output_dir!r} is inside {own}, which regrow itself fills.", _REMEDY)
    return folder


def _leads_to(link: Path, target: Path) -> bool:
    return link.is_symlink() and os.path.realpath(link) == os.path.realpath(target)


def make_links(links: dict[Path, Path]) -> None:
    """Make those that are missing; relative ones, so that a moved project keeps working."""
    for link, target in links.items():
        if not link.is_symlink():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(target.resolve(), link.parent))

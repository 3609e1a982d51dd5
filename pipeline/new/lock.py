"""The requirements.lock of a new project: the versions that are installed here.

Identities of stages are made from it, and a stage refuses to run with other versions than it names. The lock that comes along says
which versions regrow was tested with; a version that differs is told, because others' digests were made with the tested one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pipeline.identity import code_identity, locked_name, read_lock


@dataclass(frozen=True)
class Lock:
    """``text`` of a requirements.lock; ``differing``: ``name installed (tested: version)`` for each that is not the tested one."""

    text: str
    differing: list[str]


def lock_installed(tested: Path, stages: Iterable[str]) -> Lock:
    """The lines of the lock ``tested`` that are installed, at the installed version; besides them what ``stages`` import.

    What stages may import and is not installed (an extra) keeps the tested version: that is the one to install.
    """
    versions = read_lock(tested)
    needed = {name for stage in stages for name in code_identity(tested.parent, [f"stages.{stage}"], versions)["packages"]}
    lines, differing = [], []
    for line in tested.read_text(encoding="utf-8").splitlines():
        name, _, wanted = line.partition("==")
        found = None if line.startswith("#") else _installed(name)
        if line.startswith("#") or (found is None and locked_name(name) in needed) or found == wanted:
            lines.append(line)
        elif found is not None:
            lines.append(f"{name}=={found}")
            differing.append(f"{name} {found} (tested: {wanted})")
    return Lock("\n".join(lines) + "\n", differing)


def _installed(name: str) -> str | None:
    """Local version labels (``+cpu``) are left out, as everywhere in locks."""
    try:
        return version(name).partition("+")[0]
    except PackageNotFoundError:
        return None

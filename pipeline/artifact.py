"""A folder published whole: files, a manifest that names each by size and digest, and one digest for all of it.

Nothing in a manifest depends on time, host, path or worker count. A folder without a valid manifest is not an artifact.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.digest import canonical_json, digest_file, digest_json
from pipeline.errors import RegrowError

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Artifact:
    """A published folder, verified. ``content`` is what its stage said of it; ``digest`` covers files and content."""

    name: str
    path: Path
    content: Mapping[str, Any]
    files: Mapping[str, Mapping[str, Any]]
    inputs: Mapping[str, str]

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over the files' digests and the content. Equal content has an equal digest on every machine."""
        return digest_json({"files": dict(self.files), "content": dict(self.content)})


@dataclass
class Draft:
    """A fresh folder that a stage fills. What ``describe`` is given becomes the manifest's content."""

    name: str
    path: Path
    content: dict[str, Any] = field(default_factory=dict)

    def describe(self, **content: Any) -> None:
        """Add facts about the artifact (counts, schema, kinds) to its manifest. JSON values only."""
        self.content.update(content)


class DamagedArtifact(RegrowError):
    """A folder that is not what its stage published. ``path`` is where it is."""

    def __init__(self, message: str, path: Path) -> None:
        super().__init__(message, f"Remove {path} and run `dvc repro`: it comes back from DVC's cache, or the stage makes it again.")
        self.path = path


def open_artifact(path: Path, *, verify: bool = True) -> Artifact:
    """Read a published folder; with ``verify``, hash every file against the manifest.

    Raises:
        DamagedArtifact: no manifest, a file missing or not listed, a size or digest that differs.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        artifact = Artifact(manifest["artifact"], path, manifest["content"], manifest["files"], manifest["inputs"])
        recorded = {name: (record["size"], record["sha256"]) for name, record in artifact.files.items()}
    except FileNotFoundError:
        raise DamagedArtifact(f"{path} is not a complete artifact: {MANIFEST} is missing.", path) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedArtifact(f"{path / MANIFEST} cannot be read: {error!r}.", path) from None
    if verify:
        _verify(path, recorded)
    return artifact


def _verify(path: Path, recorded: Mapping[str, tuple[int, str]]) -> None:
    found = _list_files(path)
    for name in sorted(found.keys() ^ recorded.keys()):
        problem = "is missing" if name in recorded else "is not in the manifest"
        raise DamagedArtifact(f"{path / name} {problem}.", path)
    for name, (size, sha256) in recorded.items():
        if found[name].stat().st_size != size or digest_file(found[name]) != sha256:
            raise DamagedArtifact(f"{found[name]} is not what its stage wrote: size or SHA-256 differs from {MANIFEST}.", path)


def _list_files(folder: Path) -> dict[str, Path]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path for path in files if path != folder / MANIFEST}


def seal(draft: Draft, inputs: Mapping[str, str]) -> Artifact:
    """Write the draft's manifest. ``inputs`` maps the artifacts it was made from to their digests.

    Raises:
        RegrowError: the draft holds a link, whose target the artifact would not own.
    """
    for path in draft.path.rglob("*"):
        if path.is_symlink():
            raise RegrowError(f"{path} is a symbolic link; an artifact owns its bytes.")
    files = {name: {"size": path.stat().st_size, "sha256": digest_file(path)} for name, path in _list_files(draft.path).items()}
    manifest = {"artifact": draft.name, "files": files, "content": draft.content, "inputs": dict(inputs)}
    (draft.path / MANIFEST).write_text(canonical_json(manifest), encoding="utf-8")
    sync_files(draft.path)
    return Artifact(draft.name, draft.path, draft.content, files, dict(inputs))


def publish(draft: Draft, destination: Path) -> None:
    """Move a sealed draft to its place by rename, so that a reader sees the old folder, none, or the whole new one."""
    if destination.exists():
        shutil.rmtree(destination)
    draft.path.rename(destination)


def sync_files(folder: Path) -> None:
    """Reach the disk before the rename does: after a power cut a published folder must not hold empty files."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

"""Results that stay from run to run: what a model made of a task, found again by the digests of both.

A file holds the SHA-256 of what follows it, and JSON. It appears by rename, so that a killed run leaves whole files or none; one that
does not match its checksum counts as missing. What a run gets from here is what it would compute: floats survive JSON to the last bit.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.digest import digest_json
from pipeline.errors import RegrowError

MOST_BYTES = 2**30
"""What the folder may hold. Results that were not used for longest go first."""


@dataclass(frozen=True)
class Task:
    """Something every model is asked to do.

    Attributes:
        name: for people: the first part of the files' names.
        digest: SHA-256 (hex) of all that decides the result besides the model: rows, options, code, libraries, device.
    """

    name: str
    digest: str


class Results:
    """A folder of results."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._used: set[Path] = set()

    def get(self, task: Task, model: str, compute: Callable[[], Any]) -> Any:
        """What ``compute`` returns (JSON values), or returned when ``model`` (a digest) was given the same task before.

        Raises:
            RegrowError: the folder cannot be written, or the disk is full.
        """
        path = self._folder / f"{task.name}-{digest_json([task.name, task.digest, model])[:40]}.json"
        self._used.add(path)
        known = _load(path)
        if known is None:
            _save(path, compute())
            known = _load(path)
        return known

    def prune(self, most_bytes: int = MOST_BYTES) -> None:
        """Remove what has not been used for longest, and what killed runs left; never what this run used."""
        for left in self._folder.glob("*.partial"):
            left.unlink(missing_ok=True)
        states = {path: path.stat() for path in self._folder.glob("*.json")}
        total = sum(state.st_size for state in states.values())
        for path in sorted(states.keys() - self._used, key=lambda path: (states[path].st_mtime_ns, path)):
            if total <= most_bytes:
                break
            path.unlink(missing_ok=True)
            total -= states[path].st_size


def _load(path: Path) -> Any:
    try:
        stored = path.read_bytes()
    except OSError:
        return None
    with suppress(OSError):  # somebody else's file
        path.touch()
    checksum, _, content = stored.partition(b"\n")
    return json.loads(content) if checksum.decode("ascii", "replace") == _checksum(path, content) else None


def _save(path: Path, value: Any) -> None:
    content = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    partial = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.stem, suffix=".partial", delete=False) as stream:
            partial = Path(stream.name)
            stream.write(_checksum(path, content).encode() + b"\n" + content)
        partial.replace(path)
    except OSError as error:
        if partial is not None:
            partial.unlink(missing_ok=True)
        reason = error.strerror or error
        raise RegrowError(f"Results of eval cannot be kept in {path.parent}: {reason}.", "Make room on that disk.") from error


def _checksum(path: Path, content: bytes) -> str:
    """Covers the name too: a file that was copied to another result's place is none."""
    return hashlib.sha256(path.name.encode() + b"\n" + content).hexdigest()

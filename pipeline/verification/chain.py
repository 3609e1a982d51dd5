"""The chain of digests: every line of dvc.lock against the bytes, in the order of the pipeline."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.artifact import open_artifact
from pipeline.errors import RegrowError
from pipeline.progress import Task
from pipeline.project import Project
from pipeline.verification.measured import MeasuredPath, measure
from pipeline.verification.recorded import Entry, Recorded

LOCK_REMEDY = "Run: git checkout dvc.lock   (or `dvc repro`, which looks again at what it names)"
SOURCES = "data/sources"


@dataclass(frozen=True)
class Broken:
    """A link that does not hold. ``file``: where, from the project's folder."""

    stage: str
    file: str
    problem: str
    remedy: str


@dataclass
class Chain:
    """What the checks of all stages share. Every path is read once; ``task`` counts megabytes."""

    project: Project
    recorded: Recorded
    task: Task
    _seen: dict[str, MeasuredPath | None] = field(default_factory=dict)
    _bytes: int = 0
    _counting: threading.Lock = field(default_factory=threading.Lock)

    def look(self, path: str) -> MeasuredPath | None:
        """The bytes at ``path``; ``None``: nothing is there."""
        if path not in self._seen:
            place = self.project.root / path
            files = sorted(self.recorded.files(place)) if place.is_dir() else [place]
            self._seen[path] = measure(place, files, self._advance) if place.exists() else None
        return self._seen[path]

    def _advance(self, count: int) -> None:
        with self._counting:
            before, self._bytes = self._bytes >> 20, self._bytes + count
            if self._bytes >> 20 > before:
                self.task.advance((self._bytes >> 20) - before)

    def compare(self, entry: Entry) -> Iterator[Broken]:
        """One line of dvc.lock with the bytes: what is wrong with it, file by file."""
        found = self.look(entry.path)
        if entry.md5 is None:
            yield Broken(entry.stage, "dvc.lock", f"dvc.lock has no digest of {entry.place}.", LOCK_REMEDY)
        elif found is None:
            yield Broken(entry.stage, entry.path, f"{entry.path} is not there; dvc.lock has MD5 {entry.md5}.", remedy(entry))
        elif found.md5 == entry.md5:
            yield from _sizes(entry, found)
        elif other := self.recorded.agreeing(entry.path, found.md5):
            problem = f"dvc.lock: {entry.place}: MD5 {entry.md5}; the bytes have {found.md5}, as {other.place} says."
            yield Broken(entry.stage, "dvc.lock", problem, f"Run: dvc repro {entry.stage}   (or, if dvc.lock was edited, git checkout it)")
        else:
            yield from (Broken(entry.stage, name, problem, remedy(entry)) for name, problem in self._culprits(entry, found))

    def _culprits(self, entry: Entry, found: MeasuredPath) -> Iterator[tuple[str, str]]:
        """Files that differ from what dvc.lock recorded, each with what is wrong; the folder where nothing tells which they are."""
        whole = f"{entry.path}: dvc.lock has MD5 {entry.md5}; found {found.md5}."
        if not found.is_folder:
            yield entry.path, whole
            return
        listing = self.recorded.listing(entry.md5)
        expected, kind = (listing, "MD5") if listing else (self._recorded_sources() if entry.path == SOURCES else {}, "SHA-256")
        actual = {name: file.md5 if listing else file.sha256 for name, file in found.files.items()}
        names = [name for name in sorted(expected.keys() | actual.keys()) if expected.get(name) != actual.get(name)] if expected else []
        for name in names:
            yield f"{entry.path}/{name}", self._difference(f"{entry.path}/{name}", kind, expected.get(name), actual.get(name))
        if not names:
            yield entry.path, f"A file in it changed: {whole}"

    def _difference(self, name: str, kind: str, expected: str | None, found: str | None) -> str:
        place = self.project.root / name
        leads = f"{name} (a link to {place.resolve()})" if place.is_symlink() else name
        if found is None:
            return f"{leads} is missing; its {kind} was {expected}."
        if expected is None:
            return f"{leads} was not there when dvc.lock was written; its {kind} is {found}."
        return f"{leads}: {kind} was {expected}; found {found}."

    def _recorded_sources(self) -> dict[str, str]:
        """SHA-256 of the sources that the artifacts here were fetched from; empty where the run record is of another run."""
        record = self.record("fetch")
        try:
            same = all(open_artifact(self.project.data / name, verify=False).digest == told for name, told in record["outputs"].items())
            return dict(record["sources"]) if same else {}
        except (KeyError, RegrowError):
            return {}

    def record(self, stage: str) -> Mapping[str, Any]:
        """The run record of a stage on this machine; empty where there is none."""
        try:
            record = json.loads((self.project.data / "metrics" / f"{stage}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}


def _sizes(entry: Entry, found: MeasuredPath) -> Iterator[Broken]:
    """The counts beside a digest that holds."""
    for name, expected, actual in (
        ("size", entry.size, found.size),
        ("nfiles", entry.nfiles, len(found.files) if found.is_folder else None),
    ):
        if expected != actual:
            problem = f"dvc.lock: {entry.place}: {name} {expected}, though its digest is right; found {actual}."
            yield Broken(entry.stage, "dvc.lock", problem, LOCK_REMEDY)


def remedy(entry: Entry) -> str:
    """What brings a path back."""
    if entry.path == SOURCES:
        return "Put the file back, or run `dvc repro`, which fetches it anew."
    if entry.stage == "configure" or entry.path.startswith("data/options/"):
        return "Run: dvc repro configure   (and `regrow plan` says what would run after it)"
    return f"Remove {entry.path} and run `dvc checkout {entry.path}`, or `dvc repro` to make it again."

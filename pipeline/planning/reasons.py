"""Why a stage would run: single differences between its last run and what is there now."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.configure import kept_document
from pipeline.planning.recorded import Hashes, Locked, Recorded, text_hash
from pipeline.project import Project

_SHORT = 8
"""Characters of a hash that people are shown."""


@dataclass(frozen=True)
class Reason:
    """One difference.

    Attributes:
        kind: ``option``, ``code``, ``library``, ``input``, ``output``, ``command``, or ``run`` where there was none.
        name: of the option, module, library, or path in the project.
        old: as it was at the last run; of what was not there, ``None``.
        what: said of it instead of both values.
    """

    kind: str
    name: str
    old: Any = None
    new: Any = None
    what: str | None = None

    def __str__(self) -> str:
        if self.what is not None:
            return f"{self.kind} {self.name} {self.what}" if self.name else f"{self.kind}: {self.what}"
        if self.kind == "code":
            return f"code {self.name} {'is new' if self.old is None else 'is gone' if self.new is None else 'changed'}"
        return f"{self.kind} {self.name}: {_shown(self.old)} -> {_shown(self.new)}"


def _shown(value: Any) -> str:
    return "not set" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


_KINDS = {"options": "option", "code": "code", "packages": "library"}


def document_reasons(project: Project, stage: str, recorded_hash: str, text: str) -> Iterator[Reason]:
    """What differs between the options, code and libraries of the last run and ``text``, the document of now."""
    if recorded_hash == text_hash(text):
        return
    former = former_document(project, stage, recorded_hash)
    if former is None:
        yield Reason("option", f"data/options/{stage}.json", what="differs from that of dvc.lock, which is kept nowhere on this disk")
        return
    current = json.loads(text)
    for part, kind in _KINDS.items():
        yield from _differences(kind, former.get(part, {}), current.get(part, {}))


def former_document(project: Project, stage: str, recorded_hash: str) -> Mapping[str, Any] | None:
    """The document of the run in dvc.lock: what `configure` wrote last, or one that it wrote before."""
    for path in (project.options / f"{stage}.json", kept_document(project, recorded_hash)):
        try:
            text = path.read_bytes().decode("utf-8")
            if text_hash(text) == recorded_hash:
                document: Mapping[str, Any] = json.loads(text)
                return document
        except (OSError, ValueError):
            continue
    return None


def _differences(kind: str, old: Mapping[str, Any], new: Mapping[str, Any], within: str = "") -> Iterator[Reason]:
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name), new.get(name)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from _differences(kind, before, after, f"{within}{name}.")
        elif before != after:
            yield Reason(kind, f"{within}{name}", before, after)


def input_reasons(project: Project, locked: Locked, inputs: Hashes, sources: Mapping[str, Any]) -> Iterator[Reason]:
    """Inputs that are known to be others than those of the last run."""
    for path, value in inputs.items():
        before = locked.input_hashes.get(path)
        if value == before:
            continue
        if path == "data/sources":
            yield Reason("input", path, before, value, what=_edited(project, sources))
        else:
            yield Reason("input", path, _short(before), _short(value), what=None if value else "is not there")


def _edited(project: Project, sources: Mapping[str, Any]) -> str:
    """Of files that params.yaml names only their hash together is recorded, so those are told that changed after the last run."""
    manifest = project.data / "raw" / "manifest.json"
    since = manifest.stat().st_mtime_ns if manifest.exists() else 0
    index = project.sources / "index.json"
    names = set(json.loads(index.read_text(encoding="utf-8"))) if index.exists() else set()
    edited = [name for name, file in sources.items() if name not in names or file.stat().st_mtime_ns > since]
    told = [
        *edited[:3],
        *([f"and {len(edited) - 3} more"] if len(edited) > 3 else []),
        *(f"{name} is gone" for name in names - sources.keys()),
    ]
    return f"changed: {', '.join(told)}" if told else "holds other bytes or files than at the last run"


def output_reasons(recorded: Recorded, locked: Locked) -> Iterator[Reason]:
    """Outputs that are not what the last run left."""
    for path in locked.outputs:
        value, found = locked.output_hashes.get(path), recorded.found(path)
        if value is None:
            continue
        if found is None:
            yield Reason("output", path, what="is not there")
        elif found != value:
            yield Reason("output", path, _short(value), _short(found), what=_altered(recorded, path, value, found))
        elif not recorded.is_cached(value):
            yield Reason("output", path, what="is not in DVC's cache, without which DVC does not trust it")


def _altered(recorded: Recorded, path: str, value: str, found: str) -> str:
    before = recorded.cached_files(value)
    if recorded.cached_files(found) is not None:
        return "is of another run than dvc.lock says"
    if before is None:
        return "is not what dvc.lock says"
    now = recorded.files(path)
    names = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    return f"was altered: {', '.join(names[:3])}{' and more' if len(names) > 3 else ''}"


def _short(value: str | None) -> str | None:
    return value[:_SHORT] if value else None

"""What dvc.lock says of the stages: which bytes each read and wrote. Read by DVC itself, with its own checks."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import RegrowError
from pipeline.project import Project


@dataclass(frozen=True)
class Entry:
    """One line of dvc.lock. ``md5``, ``size`` in bytes and ``nfiles`` are ``None`` where nothing is recorded."""

    stage: str
    kind: str
    path: str
    md5: str | None
    size: int | None
    nfiles: int | None

    @property
    def place(self) -> str:
        """Where in dvc.lock it is."""
        return f"{self.stage}: {self.kind}: {self.path}"


@dataclass(frozen=True)
class RecordedStage:
    """A stage of dvc.yaml. ``deps`` and ``outs`` by path from the project's folder; ``ran``: dvc.lock knows it, with its command."""

    name: str
    ran: bool
    command_changed: bool
    deps: Mapping[str, Entry]
    outs: Mapping[str, Entry]

    @property
    def entries(self) -> tuple[Entry, ...]:
        return (*self.deps.values(), *self.outs.values())


class Recorded:
    """dvc.yaml and dvc.lock of a project.

    Attributes:
        lock: the dvc.lock.
        stages: by name.

    Raises:
        BrokenLock: dvc.lock is not as DVC writes it.
        RegrowError: there is no DVC repository, or dvc.yaml cannot be read.
    """

    def __init__(self, project: Project) -> None:
        from dvc.exceptions import DvcException
        from dvc.repo import Repo
        from dvc.stage import PipelineStage

        try:
            self._repo = Repo(str(project.root))
            pipeline = [stage for stage in self._repo.index.stages if isinstance(stage, PipelineStage)]  # no .dvc files of `dvc add`
            stages = [stage for stage in pipeline if Path(stage.wdir).resolve() == project.root]
            self.stages = {stage.name.partition("@")[0]: self._stage(stage) for stage in stages}
            self.lock = Path(stages[0].dvcfile._lockfile.path) if stages else project.root / "dvc.lock"
            self._require_as_written()
            self._require_md5()
        except DvcException as error:
            raise _unreadable(error, project.root) from None

    def _stage(self, stage: Any) -> RecordedStage:
        def entries(kind: str, items: list[Any]) -> dict[str, Entry]:
            name = stage.name.partition("@")[0]
            return {
                item.def_path: Entry(
                    name, kind, item.def_path, item.hash_info.value if item.hash_info else None, item.meta.size, item.meta.nfiles
                )
                for item in items
                if item.def_path and item.protocol == "local"
            }

        deps, outs = entries("deps", [dep for dep in stage.deps if not hasattr(dep, "params")]), entries("outs", stage.outs)
        ran = any(entry.md5 for entry in outs.values())
        return RecordedStage(stage.name.partition("@")[0], ran, bool(stage.cmd_changed), deps, outs)

    def _require_as_written(self) -> None:
        """A byte that changes no value (a line end, a blank) is found by writing the file again."""
        from dvc.utils.serialize._yaml import _dump, parse_yaml_for_update

        if not self.lock.exists():
            return
        text = self.lock.read_bytes().decode("utf-8", errors="replace")
        again = io.StringIO()
        _dump(parse_yaml_for_update(text, str(self.lock)), again)
        if again.getvalue() != text:
            lines = zip(text.split("\n"), [*again.getvalue().split("\n"), ""], strict=False)
            number, (found, expected) = next((i, pair) for i, pair in enumerate(lines, 1) if pair[0] != pair[1])
            raise BrokenLock(f"dvc.lock is not as DVC writes it: line {number} is {found!r}, and would be {expected!r}.")

    def _require_md5(self) -> None:
        """DVC takes a kind of hash that it does not know for none."""
        from dvc.utils.serialize import load_yaml

        for name, stage in (load_yaml(str(self.lock))["stages"] if self.lock.exists() else {}).items():
            for item in [*stage.get("deps", []), *stage.get("outs", [])]:
                if item.get("hash", "md5") != "md5":
                    raise BrokenLock(f"dvc.lock: {name}: {item['path']}: hash is {item['hash']!r}; DVC writes md5.")

    def files(self, path: Path) -> Iterator[Path]:
        """The files of a folder that DVC sees: .dvcignore is minded."""
        yield from (Path(name) for name in self._repo.dvcignore.find(self._repo.fs, str(path)))

    def agreeing(self, path: str, md5: str) -> Entry | None:
        """An entry that says ``path`` has this MD5."""
        entries = (entry for stage in self.stages.values() for entry in stage.entries)
        return next((entry for entry in entries if entry.path == path and entry.md5 == md5), None)

    def listing(self, md5: str | None) -> dict[str, str] | None:
        """MD5 of every file of a folder that DVC keeps in its cache; ``None`` where it does not have it, or has it damaged."""
        from dvc_data.hashfile.hash import file_md5

        if md5 is None or not md5.endswith(".dir"):
            return None
        kept = Path(self._repo.cache.local.oid_to_path(md5))
        if not kept.is_file() or f"{file_md5(str(kept))}.dir" != md5:
            return None
        return {item["relpath"]: item["md5"] for item in json.loads(kept.read_text(encoding="utf-8"))}


class BrokenLock(RegrowError):
    """dvc.lock is damaged."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem, "Run: git checkout dvc.lock   (or `dvc repro`, which writes what it finds)")


def _unreadable(error: Exception, root: Path) -> RegrowError:
    from dvc.exceptions import NotDvcRepoError

    if isinstance(error, NotDvcRepoError):
        return RegrowError(f"{root} is not a DVC repository.", "Run: git init && dvc init")
    text = " ".join(f"{error} {error.__cause__ or ''}".split())
    return BrokenLock(f"dvc.lock cannot be read: {text}") if "dvc.lock" in text else RegrowError(f"DVC cannot read the project: {text}")

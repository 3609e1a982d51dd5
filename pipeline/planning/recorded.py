"""What DVC knows of a project: what dvc.lock says, what its caches hold, and what is in the folder. Reads, and writes nothing there.

Answers follow DVC 3.67: a stage is skipped if its command, dependencies and outputs are those of dvc.lock and the cache holds the
outputs. Else the outputs come from the cache if a run with these dependencies is known (`dvc/stage/cache.py`), else it runs.
"""

from __future__ import annotations

import hashlib
import json
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import RegrowError
from pipeline.project import Project

Hashes = dict[str, str]
"""DVC's hash of each file or folder, by path in the project. Of a folder it ends in ``.dir``."""

_PROTECTED = 0o444
"""Mode of objects in DVC's cache that it takes for whole without reading them."""


@dataclass(frozen=True)
class Locked:
    """A stage as dvc.yaml has it, and as its last run left it in dvc.lock. Paths are those of dvc.yaml.

    Attributes:
        is_known: whether dvc.lock has it at all.
        is_frozen: `dvc freeze` was called on it, so that nothing before it matters.
    """

    command: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    input_hashes: Hashes
    output_hashes: Hashes
    is_known: bool
    same_command: bool
    is_frozen: bool


class Recorded:
    """An opened DVC repository; see :func:`open_recorded`."""

    def __init__(self, project: Project, repository: Any) -> None:
        from dvc.dvcfile import load_file

        self._root, self._repository = project.root, repository
        self._cache = repository.cache.local
        self._stages: Mapping[str, Any] = load_file(repository, str(project.root / "dvc.yaml")).stages
        self._found: dict[str, str | None] = {}

    def stage(self, name: str) -> Locked:
        """A stage of dvc.yaml.

        Raises:
            RegrowError: dvc.yaml has no such stage.
        """
        if name not in self._stages:
            raise RegrowError(f"dvc.yaml has no stage {name!r}.", "It comes with the repository: git checkout dvc.yaml")
        stage = self._stages[name]
        inputs, outputs = ({str(item.def_path): _value(item) for item in items} for items in (stage.deps, stage.outs))
        return Locked(
            command=str(stage.cmd),
            inputs=tuple(inputs),
            outputs=tuple(outputs),
            input_hashes={path: value for path, value in inputs.items() if value is not None},
            output_hashes={path: value for path, value in outputs.items() if value is not None},
            is_known=any(inputs.values()) or any(outputs.values()),
            same_command=not stage.cmd_changed,
            is_frozen=bool(stage.frozen),
        )

    def found(self, path: str) -> str | None:
        """Hash of what is at ``path`` now; ``None`` for nothing. DVC's own table of known files saves reading them again."""
        if path not in self._found:
            place = self._root / path
            self._found[path] = self._tree(place)[1] if place.exists() else None
        return self._found[path]

    def files(self, path: str) -> Hashes:
        """Hashes of the files in the folder at ``path`` now, by their place in it."""
        return self._tree(self._root / path)[0]

    def hash_of(self, path: str, files: Mapping[str, Path], texts: Mapping[str, str]) -> str:
        """Hash of the folder at ``path`` if it held these files, and these texts as files, without what .dvcignore names."""
        ignored, folder = self._repository.dvcignore, self._root / path
        kept = {name: file for name, file in files.items() if not ignored.is_ignored(self._repository.fs, str(folder / name))}
        entries = {name: self._tree(file)[1] for name, file in kept.items()}
        return folder_hash(entries | {name: text_hash(text) for name, text in texts.items()})

    def restored(self, locked: Locked, inputs: Hashes) -> Hashes | None:
        """Outputs of a run of the stage on ``inputs`` that DVC would take from its cache; ``None`` where it would run the stage."""
        unchanged = locked.same_command and inputs == locked.input_hashes and set(locked.outputs) == set(locked.output_hashes)
        outputs = locked.output_hashes if unchanged else self._earlier_run(locked, inputs)
        return outputs if outputs is not None and all(map(self.is_cached, outputs.values())) else None

    def _earlier_run(self, locked: Locked, inputs: Hashes) -> Hashes | None:
        """Outputs by DVC's run cache, which finds a run by its command, inputs and the names of its outputs."""
        from dvc.utils import dict_sha256
        from dvc.utils.serialize import load_yaml

        deps = [{"path": path, "hash": "md5", "md5": inputs[path]} for path in sorted(inputs)]
        key = dict_sha256({"cmd": locked.command, "deps": deps, "outs": sorted(locked.outputs)})
        folder = Path(self._repository.stage_cache.cache_dir, key[:2], key)
        entries = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime) if folder.is_dir() else []
        if not entries:
            return None
        try:
            return {str(out["path"]): str(out["md5"]) for out in load_yaml(str(entries[-1]))["outs"]}
        except (KeyError, TypeError, ValueError):
            return None

    def is_cached(self, value: str) -> bool:
        """Whether DVC's cache holds an output, all of its files."""
        if not self._is_sound(value):
            return False
        return all(map(self._is_sound, (self.cached_files(value) or {}).values())) if value.endswith(".dir") else True

    def cached_files(self, value: str) -> Hashes | None:
        """Files of a folder by DVC's cache; ``None`` if it is not there."""
        try:
            entries = json.loads(Path(self._cache.oid_to_path(value)).read_text(encoding="utf-8"))
            return {str(entry["relpath"]): str(entry["md5"]) for entry in entries}
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _is_sound(self, value: str) -> bool:
        """As DVC sees it, but what is damaged is not removed."""
        path = Path(self._cache.oid_to_path(value))
        try:
            if stat.S_IMODE(path.stat().st_mode) == _PROTECTED:
                return True
            return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() == value.removesuffix(".dir")
        except OSError:
            return False

    def _tree(self, place: Path) -> tuple[Hashes, str]:
        """Files of a folder with their hashes, and the hash of all."""
        from dvc_data.hashfile.build import build
        from dvc_data.hashfile.tree import Tree

        _, _, built = build(self._cache, str(place), self._repository.fs, "md5", dry_run=True, ignore=self._repository.dvcignore)
        files = {"/".join(key): str(entry.value) for key, _, entry in built if entry} if isinstance(built, Tree) else {}
        return files, str(built.hash_info.value)


def _value(item: Any) -> str | None:
    return str(item.hash_info.value) if item.hash_info else None


def text_hash(text: str) -> str:
    """DVC's hash of a file."""
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def folder_hash(files: Hashes) -> str:
    """DVC's hash of a folder, from those of its files."""
    entries = [{"md5": files[name], "relpath": name} for name in sorted(files)]
    return f"{hashlib.md5(json.dumps(entries, sort_keys=True).encode(), usedforsecurity=False).hexdigest()}.dir"


@contextmanager
def open_recorded(project: Project) -> Iterator[Recorded]:
    """Open DVC's view of a project.

    Raises:
        RegrowError: the project is in no DVC repository, or dvc.yaml or dvc.lock cannot be read.
    """
    from dvc.exceptions import DvcException, NotDvcRepoError
    from dvc.repo import Repo

    class Unwritten(Repo):  # type: ignore[misc]
        """Opening a repository, DVC makes .dvc/tmp and adds to .gitignore. This one makes its folder elsewhere if there is none yet."""

        @property
        def tmp_dir(self) -> str | None:
            used: str | None = super().tmp_dir
            return used if used is not None and Path(used, "btime").exists() else str(elsewhere)

        def _ignore(self) -> None:
            pass

    with ExitStack() as stack:
        elsewhere = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        try:
            repository = stack.enter_context(Unwritten(str(project.root)))
            yield Recorded(project, repository)
        except NotDvcRepoError:
            raise RegrowError(f"{project.root} is not a DVC repository.", "Run: git init && dvc init") from None
        except DvcException as error:
            raise RegrowError(
                f"{project.root}: DVC says: {error}.", "Mend it, or take it from git: git checkout dvc.yaml dvc.lock"
            ) from None

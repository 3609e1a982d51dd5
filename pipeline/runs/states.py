"""What git and DVC know of a project: params.yaml and dvc.lock of commits, of experiments, and as they are now."""

from __future__ import annotations

import hashlib
import itertools
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Literal

from pipeline.errors import RegrowError
from pipeline.history import written_params
from pipeline.project import Project

Kind = Literal["workspace", "commit", "experiment", "queued", "running", "failed", "run"]


@dataclass(frozen=True)
class State:
    """One params.yaml and what came of it.

    Attributes:
        name: short commit, name of the experiment, or what the kind says.
        revision: full commit; ``None`` for the working tree.
        before: revision of the commit it is compared with; ``None`` where there is none.
        params: params.yaml as written, by dotted option.
        outputs: DVC's MD5 of each artifact that this params.yaml led to, by the name of its folder under data/; none if it has not run.
        stages: names of the artifacts each stage writes.
    """

    kind: Kind
    name: str
    revision: str | None
    before: str | None
    when: datetime | None
    subject: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    stages: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


class Revisions:
    """States of a project by git and DVC."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._known: dict[str, State] = {}

    @cached_property
    def has_git(self) -> bool:
        return self._git("rev-parse", "--git-dir") is not None

    @cached_property
    def head(self) -> str | None:
        """The commit that is checked out."""
        found = self._git("rev-parse", "--verify", "--quiet", "HEAD")
        return found.strip() if found else None

    def workspace(self) -> State:
        """The files as they are."""
        texts = [_read(self._project, name) for name in ("params.yaml", "dvc.lock")]
        return _state("workspace", "workspace", None, self.head, datetime.now(UTC), texts)

    def commits(self, count: int) -> list[State]:
        """The newest ``count`` commits that changed params.yaml or dvc.lock, newest first."""
        listing = self._git("log", f"--max-count={count + 1}", "--format=%H", "--", "params.yaml", "dvc.lock") if self.head else None
        revisions = (listing or "").split()
        earlier: dict[str, str] = dict(itertools.pairwise(revisions))
        return [self._at("commit", one[:7], one, earlier.get(one)) for one in revisions[:count]]

    def experiments(self) -> Iterator[State]:
        """DVC's finished experiments, and those that wait, run or failed in its queue."""
        if self.head is None:
            return
        for line in (self._git("for-each-ref", "--format=%(objectname) %(refname)", "refs/exps") or "").splitlines():
            revision, _, reference = line.partition(" ")
            parts = reference.split("/")  # refs/exps/01/234abcd.../name
            if len(parts) == 5 and len(parts[2] + parts[3]) == len(revision):
                yield self._at("experiment", parts[4], revision, parts[2] + parts[3])
        yield from self._queued()

    def at(self, revision: str) -> State:
        """The state of any commit."""
        return self._at("commit", revision[:7], revision, None)

    def _queued(self) -> Iterator[State]:
        if not any((place / ".dvc" / "tmp" / "exps" / "celery").is_dir() for place in (self._project.root, *self._project.root.parents)):
            return
        from dvc.repo import Repo

        with Repo(str(self._project.root)) as repo:
            queue = repo.experiments.celery_queue
            waiting: list[tuple[Kind, Any]] = [("running", entry) for entry in queue.iter_active()]
            waiting += [("queued", entry) for entry in queue.iter_queued()]
            waiting += [("failed", result.entry) for result in queue.iter_failed()]
        for kind, entry in waiting:
            yield self._at(kind, entry.name or entry.stash_rev[:7], entry.stash_rev, entry.baseline_rev)

    def _at(self, kind: Kind, name: str, revision: str, before: str | None) -> State:
        key = f"{kind} {revision} {before}"
        if key not in self._known:
            moment, _, subject = (self._git("show", "--no-patch", "--format=%ct %s", revision) or "0 ").strip().partition(" ")
            texts = [self._git("show", f"{revision}:./{file}") or "" for file in ("params.yaml", "dvc.lock")]
            when = datetime.fromtimestamp(int(moment), UTC)
            self._known[key] = _state(kind, name, revision, before, when, texts, subject)
        return self._known[key]

    def _git(self, *arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], cwd=self._project.root, capture_output=True, check=False)
        except FileNotFoundError:
            return None
        return done.stdout.decode("utf-8", "surrogateescape") if done.returncode == 0 else None


def _read(project: Project, name: str) -> str:
    try:
        return (project.root / name).read_bytes().decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return ""


def _state(kind: Kind, name: str, revision: str | None, before: str | None, when: datetime, texts: list[str], subject: str = "") -> State:
    try:
        params = written_params(texts[0].removeprefix("\ufeff"))
    except RegrowError:
        params = {}  # a commit may hold a params.yaml that never worked
    configured, outputs, stages = _locked(texts[1])
    if configured not in (None, hashlib.md5(texts[0].encode("utf-8", "surrogateescape"), usedforsecurity=False).hexdigest()):
        outputs, stages = {}, {}
    return State(kind, name, revision, before, when, subject, params, outputs, stages)


def _locked(text: str) -> tuple[str | None, dict[str, str], dict[str, tuple[str, ...]]]:
    """MD5 of the params.yaml that ran, MD5 by artifact, and artifacts by stage, of a dvc.lock. What is no dvc.lock has none.

    Stages that were not run after something before them are left out: what they wrote belongs to another run.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        stages = (YAML(typ="safe", pure=True).load(text) or {})["stages"]
        outs = {stage: {out["path"]: out["md5"] for out in facts.get("outs", [])} for stage, facts in stages.items()}
        deps = {stage: {dep["path"]: dep.get("md5") for dep in facts.get("deps", [])} for stage, facts in stages.items()}
    except (YAMLError, KeyError, TypeError, AttributeError):
        return None, {}, {}
    current = _current(outs, deps) - {"configure"}
    by_stage = {stage: tuple(path.removeprefix("data/") for path in found) for stage, found in outs.items() if stage in current}
    digests = {path.removeprefix("data/"): digest for stage in current for path, digest in outs[stage].items()}
    return deps.get("configure", {}).get("params.yaml"), digests, by_stage


def _current(outs: Mapping[str, Mapping[str, str]], deps: Mapping[str, Mapping[str, str | None]]) -> set[str]:
    """Stages whose inputs are what the stages before them wrote last."""
    maker = {path: stage for stage, found in outs.items() for path in found}
    current = set(outs)
    while True:
        stale = {
            stage
            for stage in current
            for path, digest in deps[stage].items()
            if path in maker and (maker[path] not in current or outs[maker[path]][path] != digest)
        }
        if not stale:
            return current
        current -= stale

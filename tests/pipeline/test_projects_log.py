"""`regrow log` over repositories made by hand: commits, experiments, runs that nobody committed, and what can be missing."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline.history import history_file, record
from pipeline.project import Project
from pipeline.runs import Log, collect
from pipeline.runs.table import log_json, print_log

STAGES = ("pack", "train", "merge", "eval")
WRITES = {"pack": "packed", "train": "trained", "merge": "merged", "eval": "eval"}


class Repository:
    """A project whose stages write what they are told to."""

    def __init__(self, root: Path) -> None:
        self.root, self.project, self._clock = root, Project(root), 1_700_000_000
        (root / ".dvc" / "tmp").mkdir(parents=True)
        (root / ".dvc" / "config").write_text("[core]\n    analytics = false\n")
        (root / ".gitignore").write_text("/data\n/.dvc/cache\n/.dvc/tmp\n")

    def git(self, *words: str) -> str:
        self._clock += 60
        when = {"GIT_AUTHOR_DATE": f"{self._clock} +0000", "GIT_COMMITTER_DATE": f"{self._clock} +0000"}
        who = {f"GIT_{role}_{what}": "a@b" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        done = subprocess.run(["git", *words], cwd=self.root, env=os.environ | when | who, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def finish(
        self,
        params: Mapping[str, Any],
        made: Mapping[str, str],
        ran: Mapping[str, float],
        experiment: str | None = None,
        inputs: Mapping[str, Mapping[str, str]] = {},
    ) -> None:
        """Be as after a run: ``made`` what each stage wrote, ``ran`` the seconds of those that ran just now, ``inputs`` what was read."""
        with (self.root / "params.yaml").open("w") as stream:
            YAML().dump(dict(params), stream)
        stages = {stage: {"outs": [{"path": f"data/{WRITES[stage]}", "md5": self._store(text)}]} for stage, text in made.items()}
        for stage, before in inputs.items():
            stages[stage]["deps"] = [{"path": f"data/{name}", "md5": self._store(text)} for name, text in before.items()]
        with (self.root / "dvc.lock").open("w") as stream:
            YAML().dump({"stages": stages}, stream)
        for stage, seconds in ran.items():
            facts: dict[str, Any] = {
                "ended": "done",
                "identity": made[stage],
                "seconds": seconds,
                "outputs": {WRITES[stage]: self.digest(made[stage])},
            }
            metrics = {"merged": {"accuracy": len(made[stage])}} if stage == "eval" else {}
            self._clock += 1
            facts["when"] = datetime.fromtimestamp(self._clock, UTC).isoformat().replace("+00:00", "Z")
            record(self.project, stage, facts | {"params": dict(params), "experiment": experiment, "metrics": metrics})

    def digest(self, text: str) -> str:
        from pipeline.digest import digest_json

        return digest_json({"files": {"metrics.json": text}, "content": {}})

    def _store(self, text: str) -> str:
        """An artifact in DVC's cache."""
        manifest = {"artifact": "x", "content": {}, "files": {"metrics.json": text}, "inputs": {}}
        files = {"manifest.json": manifest, "metrics.json": {"merged": {"accuracy": len(text)}}}
        listing = [{"md5": self._object(json.dumps(value)), "relpath": name} for name, value in files.items()]
        return self._object(json.dumps(listing), ".dir")

    def _object(self, text: str, suffix: str = "") -> str:
        name = hashlib.md5(text.encode()).hexdigest() + suffix
        path = self.root / ".dvc" / "cache" / "files" / "md5" / name[:2] / name[2:]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return name

    def commit(self, message: str) -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)
        return self.git("rev-parse", "--short=7", "HEAD")

    def log(self, count: int = 20) -> Log:
        return collect(self.project, STAGES, count)


FIRST = {"pack": "p", "train": "t", "merge": "m", "eval": "e"}
SECOND = FIRST | {"train": "t2", "merge": "m2", "eval": "e22"}


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    return Repository(tmp_path)


@pytest.fixture
def two(repository: Repository) -> tuple[Repository, str, str]:
    """Two commits, the second with another learning rate."""
    repository.git("init", "--quiet")
    repository.finish({"learning_rate": 1, "seed": 2}, FIRST, {"pack": 1, "train": 10, "merge": 2, "eval": 3})
    first = repository.commit("first")
    repository.finish({"learning_rate": 5}, SECOND, {"train": 20, "merge": 2, "eval": 3})
    return repository, first, repository.commit("second")


def told(log: Log) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(log_json(log))["runs"]
    return rows


def test_commits_say_what_was_changed_what_ran_and_what_was_reused(two: tuple[Repository, str, str]) -> None:
    repository, first, second = two
    newest, oldest = told(repository.log())
    assert (newest["name"], oldest["name"], newest["against"]) == (second, first, first)
    assert newest["changed"] == {"learning_rate": {"old": 1, "new": 5}, "seed": {"old": 2, "new": None}}
    assert newest["stages"]["pack"] == {"ran": False, "seconds": None, "of": first}
    assert newest["stages"]["train"] == {"ran": True, "seconds": 20.0, "of": None}
    assert (newest["seconds"], oldest["seconds"]) == (25.0, 16.0)
    assert newest["digests"]["trained"] == repository.digest("t2") and newest["metrics"] == {"merged": {"accuracy": 3}}
    assert [row["name"] for row in told(repository.log(1))] == [second]


def test_going_back_names_the_run_whose_results_came_back(two: tuple[Repository, str, str]) -> None:
    repository, first, _ = two
    repository.finish({"learning_rate": 1}, FIRST, {})
    repository.commit("back")
    row = told(repository.log())[0]
    assert row["subject"] == "back" and {run["of"] for run in row["stages"].values()} == {first} and row["seconds"] is None


def test_what_is_not_committed_is_a_row_and_what_was_overwritten_too(two: tuple[Repository, str, str]) -> None:
    repository, _, second = two
    repository.finish({"learning_rate": 6}, FIRST | {"train": "lost"}, {"train": 7})
    repository.finish({"learning_rate": 8}, FIRST | {"train": "kept"}, {"train": 9})
    rows = {row["kind"]: row for row in told(repository.log())}
    assert rows["workspace"]["against"] == second and rows["workspace"]["seconds"] == 9.0
    lost = rows["run"]
    assert lost["digests"] == {"trained": repository.digest("lost")} and lost["stages"]["train"]["seconds"] == 7.0
    assert lost["changed"]["learning_rate"] == {"old": 5, "new": 6}


def test_an_experiment_is_compared_with_its_commit_and_keeps_its_runs(two: tuple[Repository, str, str]) -> None:
    repository, _, second = two
    baseline = repository.git("rev-parse", "HEAD")
    repository.finish({"learning_rate": 7}, SECOND | {"train": "t3"}, {"train": 4}, experiment="faster")
    repository.commit("dvc: commit experiment")
    repository.git("update-ref", f"refs/exps/{baseline[:2]}/{baseline[2:]}/faster", "HEAD")
    repository.git("reset", "--quiet", "--hard", baseline)
    rows = {row["name"]: row for row in told(repository.log())}
    row = rows["faster"]
    assert (row["kind"], row["against"], row["seconds"]) == ("experiment", second, 4.0)
    assert row["changed"] == {"learning_rate": {"old": 5, "new": 7}} and row["stages"]["merge"]["of"] == second
    assert len(rows) == 3


def test_what_was_made_before_the_last_training_is_not_of_it(two: tuple[Repository, str, str]) -> None:
    repository, _, second = two
    read = {"merge": {"trained": "t2"}, "eval": {"merged": "m2"}}
    repository.finish({"learning_rate": 6}, SECOND | {"train": "t6"}, {"train": 7}, inputs=read)
    row = told(repository.log())[0]
    assert row["digests"] == {"packed": repository.digest("p"), "trained": repository.digest("t6")} and row["metrics"] is None
    assert row["stages"].keys() == {"pack", "train"} and row["stages"]["pack"]["of"] != second


def test_a_params_yaml_that_has_not_run_claims_no_results(two: tuple[Repository, str, str], capsys: pytest.CaptureFixture[str]) -> None:
    repository, _, _ = two
    lock = repository.root / "dvc.lock"
    ran = hashlib.md5((repository.root / "params.yaml").read_bytes()).hexdigest()
    stages = YAML().load(lock)["stages"] | {"configure": {"deps": [{"path": "params.yaml", "md5": ran}]}}
    with lock.open("w") as stream:
        YAML().dump({"stages": stages}, stream)
    assert told(repository.log())[0]["metrics"] == {"merged": {"accuracy": 3}}
    (repository.root / "params.yaml").write_text("learning_rate: 9\n")
    row = told(repository.log())[0]
    assert row["kind"] == "workspace" and row["changed"] == {"learning_rate": {"old": 5, "new": 9}}
    assert row["digests"] == {} and row["stages"] == {} and row["metrics"] is None
    print_log(repository.log())
    assert "not run" in capsys.readouterr().out


def test_a_training_that_was_stopped_and_continued_counts_both(repository: Repository) -> None:
    repository.git("init", "--quiet")
    record(repository.project, "train", {"ended": "stopped", "identity": "t", "seconds": 100, "params": {"a": 1}, "outputs": {}})
    repository.finish({"a": 1}, FIRST, {"train": 11, "merge": 1})
    repository.commit("done")
    (row,) = told(repository.log())
    assert row["stages"]["train"]["seconds"] == 111.0


def test_a_fresh_clone_without_cache_and_history_still_says_what_it_can(
    two: tuple[Repository, str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repository, first, second = two
    subprocess.run(["rm", "-r", ".dvc/cache", str(history_file(repository.project))], cwd=tmp_path, check=True)
    newest, oldest = told(repository.log())
    assert newest["digests"]["trained"] is None and newest["md5"]["trained"] and newest["seconds"] is None
    assert newest["stages"]["pack"]["of"] == first and newest["stages"]["train"]["ran"] and oldest["stages"]["pack"]["ran"]
    print_log(repository.log())
    shown = capsys.readouterr().out
    assert f"md5 {newest['md5']['trained'][:8]}" in shown and "dvc pull" in shown and second in shown


def test_without_git_the_runs_of_this_computer(repository: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    (repository.root / ".dvc" / "config").write_text("[core]\n    no_scm = true\n")
    repository.finish({"learning_rate": 1}, FIRST, {"pack": 1, "train": 10, "merge": 2, "eval": 3})
    repository.finish({"learning_rate": 5}, SECOND, {"train": 20, "merge": 2, "eval": 3})
    print_log(repository.log())
    shown = capsys.readouterr().out
    assert "no git repository" in shown and "25.0 s" in shown and "16.0 s" in shown and "train-eval" in shown
    assert "learning_rate: 1 -> 5" in shown and repository.digest("t2")[:8] in shown


def test_before_the_first_run(repository: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    repository.git("init", "--quiet")
    print_log(repository.log())
    assert "No run yet" in capsys.readouterr().out

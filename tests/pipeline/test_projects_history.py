"""The history of runs: appended by several processes, cut short by a kill, written from an experiment's copy."""

from __future__ import annotations

import multiprocessing
import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline import runner
from pipeline.configure import configure
from pipeline.errors import Interrupted, RegrowError
from pipeline.history import history_file, record, records, written_params
from pipeline.options.recipe import load_recipe
from pipeline.project import Project
from stages.fetch import STAGE as FETCH

ROOT = Path(__file__).parents[2]
FACTS = {"ended": "done", "identity": "i", "seconds": 1.5, "outputs": {"packed": "d"}}


def append_many(root: Path, name: str) -> None:
    for number in range(40):
        record(Project(root), "pack", FACTS | {"identity": f"{name}-{number}", "filler": "x" * 20_000})


def test_a_record_is_read_as_it_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    record(Project(tmp_path), "pack", FACTS)
    monkeypatch.setenv("DVC_EXP_NAME", "faster")
    record(Project(tmp_path), "train", FACTS | {"ended": "stopped", "outputs": {}})
    first, second = records(Project(tmp_path))
    assert (first.stage, first.identity, first.done, first.seconds, first.outputs) == ("pack", "i", True, 1.5, {"packed": "d"})
    assert not second.done and (first.facts["experiment"], second.facts["experiment"]) == (None, "faster")
    assert first.when <= second.when and first.when.endswith("Z")


def test_processes_that_append_at_once_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=append_many, args=(tmp_path, name)) for name in ("a", "b")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    found = [item.identity for item in records(Project(tmp_path))]
    assert sorted(found) == sorted(f"{name}-{number}" for name in ("a", "b") for number in range(40))


@pytest.mark.parametrize("left", [1, 40, 120])
def test_a_line_cut_short_costs_that_line_alone(tmp_path: Path, left: int) -> None:
    project = Project(tmp_path)
    record(project, "fetch", FACTS)
    whole = history_file(project).read_bytes()
    history_file(project).write_bytes(whole + whole[:left])
    record(project, "pack", FACTS)
    assert [item.stage for item in records(project)] == ["fetch", "pack"]


def test_lines_of_anything_else_are_passed_over(tmp_path: Path) -> None:
    project = Project(tmp_path)
    assert records(project) == []
    record(project, "fetch", FACTS)
    with history_file(project).open("ab") as stream:
        stream.write(b'[1]\n{"stage": "x"}\nnull\n\xff\n\n')
    assert [item.stage for item in records(project)] == ["fetch"]


@pytest.mark.parametrize("place", ["tmpabc", "standalone/tmpabc"])
@pytest.mark.parametrize(("dvc", "inner"), [("", ""), ("", "sub/project"), ("sub", "sub/project")])
def test_an_experiments_copy_writes_to_the_project_it_was_started_in(tmp_path: Path, inner: str, place: str, dvc: str) -> None:
    copy = tmp_path / dvc / ".dvc" / "tmp" / "exps" / place
    for repository in (tmp_path, copy):
        repository.mkdir(parents=True, exist_ok=True)
        subprocess.run(["git", "init", "--quiet"], cwd=repository, check=True)
    (copy / inner).mkdir(parents=True, exist_ok=True)
    record(Project(copy / inner), "pack", FACTS)
    assert [item.stage for item in records(Project(tmp_path / inner))] == ["pack"]
    assert not list(copy.rglob("*.jsonl"))


def test_params_by_dotted_name() -> None:
    text = "a: 1\nd:\n- path: x\n  files: [1, 2]\ne: {f: {g: yes}}\nh: {}\n"
    assert written_params(text) == {"a": 1, "d[0].path": "x", "d[0].files": [1, 2], "e.f.g": "yes", "h": {}}
    with pytest.raises(RegrowError):
        written_params("- 1")


@pytest.mark.parametrize("called", ["fetch", "folder/dvc.yaml:fetch"])
def test_a_stage_that_is_asked_to_stop_leaves_its_time(called: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_arguments: object, **_keywords: object) -> None:
        raise Interrupted("asked to stop")

    project = Project(tmp_path)
    project.params.write_text("base_model: pypi:a==1/b\ndatasets: [{path: 'pypi:a==1/c', type: completion}]\nlearning_rate: 1e-3\n")
    shutil.copyfile(ROOT / "requirements.lock", project.lock)
    configure(project, load_recipe(project.params), [FETCH])
    monkeypatch.setenv("DVC_STAGE", called)
    monkeypatch.setattr(runner, "die_with_parent", lambda: None)
    monkeypatch.setattr(runner, "execute", stopped)
    with pytest.raises(Interrupted):
        runner.run_for_dvc(project, FETCH)
    (left,) = records(project)
    assert not left.done and left.stage == "fetch" and left.seconds >= 0 and left.facts["params"]["learning_rate"] == 1e-3

"""An experiment's copy of a project: what git did not copy is read from the project itself."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pipeline.errors import RegrowError
from pipeline.local_files import local_files
from pipeline.options.recipe import load_recipe
from pipeline.output import output_links
from pipeline.project import Project

PARAMS = "base_model: ./base\ndatasets:\n- {{path: {path}, type: chat_template}}\nlearning_rate: 1e-3\n"


@pytest.fixture
def copy(tmp_path: Path) -> Project:
    """The copy of ``project``, in which git tracks a.jsonl, rows/a.jsonl and base/config.json."""
    project = tmp_path / "project"
    copy = project / ".dvc" / "tmp" / "exps" / "tmpabc"
    tracked = ("a.jsonl", "rows/a.jsonl", "base/config.json")
    for root in (project, copy):
        for name in tracked:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).touch()
        subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
        subprocess.run(["git", "add", *tracked], cwd=root, check=True)
    for name in ("project/ignored.jsonl", "project/rows/b.jsonl", "project/rows/deep/c.jsonl", "project/base/model.bin", "beside.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (copy.parent / "beside.jsonl").touch()  # ../beside.jsonl from the copy, and not what is meant
    return Project(copy)


def test_paths(copy: Project) -> None:
    project = copy.home
    assert copy.named("a.jsonl") == copy.root / "a.jsonl"
    assert copy.named("ignored.jsonl") == project.root / "ignored.jsonl"
    assert copy.named("../beside.jsonl").resolve() == project.root.parent / "beside.jsonl"
    assert copy.named("nowhere.jsonl") == copy.root / "nowhere.jsonl"
    assert copy.named(str(project.root / "a.jsonl")) == project.root / "a.jsonl"
    assert project.home == project and project.named("x") == project.root / "x"


@pytest.mark.parametrize(("path", "copied", "read_there"), [
    ("a.jsonl", ["a.jsonl"], []),
    ("ignored.jsonl", [], ["ignored.jsonl"]),
    ("rows", ["rows/a.jsonl"], ["rows/b.jsonl", "rows/deep/c.jsonl"]),
    ("rows/*.jsonl", ["rows/a.jsonl"], ["rows/b.jsonl"]),
    ("../beside.jsonl", [], ["../beside.jsonl"]),
])  # fmt: skip
def test_sources(copy: Project, path: str, copied: list[str], read_there: list[str]) -> None:
    copy.params.write_text(PARAMS.format(path=path))
    found = local_files(copy, load_recipe(copy.params))
    rows = {file.resolve() for slot, file in found.items() if slot.startswith("train")}
    assert rows == {(copy.root / name).resolve() for name in copied} | {(copy.home.root / name).resolve() for name in read_there}
    base = {slot: file for slot, file in found.items() if slot.startswith("base")}
    assert base == {"base/config.json": copy.root / "base/config.json", "base/model.bin": copy.home.root / "base/model.bin"}
    copy.home.params.write_text(PARAMS.format(path=path))
    assert local_files(copy.home, load_recipe(copy.home.params)).keys() == found.keys(), "the same links, so the same run"


def test_a_tracked_file_that_the_experiment_removed_stays_away(copy: Project) -> None:
    (copy.root / "rows/a.jsonl").unlink()
    copy.params.write_text(PARAMS.format(path="rows"))
    assert {file.name for file in local_files(copy, load_recipe(copy.params)).values()} == {
        "b.jsonl",
        "c.jsonl",
        "config.json",
        "model.bin",
    }


def test_what_regrow_writes_is_no_source_there_either(copy: Project) -> None:
    (copy.home.data / "raw").mkdir(parents=True)
    (copy.home.data / "raw" / "rows.jsonl").touch()
    copy.params.write_text(PARAMS.format(path="data/raw/rows.jsonl"))
    with pytest.raises(RegrowError, match="regrow itself writes"):
        local_files(copy, load_recipe(copy.params))


def test_links_to_a_copy_that_is_thrown_away_are_not_made(copy: Project) -> None:
    assert output_links(copy, "./outputs") == {} != output_links(copy.home, "./outputs")

"""Local sources as `configure` links them: files, folders and patterns, and nothing that regrow itself writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import RegrowError
from pipeline.local_files import local_files
from pipeline.options.reading.source import parse
from pipeline.options.recipe import check_source
from pipeline.project import Project
from tests.fetch.made import write
from tests.fetch.rows import fetch_rows


def linked(project: Path, path: str, more: str = "") -> list[str]:
    """Names under data/sources for one dataset entry."""
    text = f"base_model: a/b\nlearning_rate: 1e-4\ndatasets:\n  - path: {path}\n    type: completion\n{more}"
    return sorted(local_files(Project(project), check_source(parse(text, "params.yaml"))))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in ("data/mine/a.jsonl", "data/mine/b.jsonl", "data/mine/deep/c.jsonl", "data/mine/.d.jsonl", "data/mine/e.txt", "rows.jsonl"):
        write(tmp_path / name)
    write(tmp_path / "data" / "raw" / "train-00" / "00000.jsonl")
    (tmp_path / "shipped").symlink_to("data/raw")
    (tmp_path / "bytes").mkdir()
    (tmp_path / "bytes" / "\udcff.jsonl").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("rows.jsonl", ["rows.jsonl"]),
        ("data/mine", ["a.jsonl", "b.jsonl", "deep/c.jsonl", "e.txt"]),
        ("data/mine/*.jsonl", ["a.jsonl", "b.jsonl"]),
        ("data/mine/**/*.jsonl", ["a.jsonl", "b.jsonl", "deep/c.jsonl"]),
        ("./data/m*/[ab].jsonl", ["mine/a.jsonl", "mine/b.jsonl"]),
        ("'*.jsonl'", ["rows.jsonl"]),
    ],
)
def test_files_folders_and_patterns(project: Path, path: str, expected: list[str]) -> None:
    assert linked(project, path) == [f"train-00/{name}" for name in expected]


def test_a_new_file_is_noticed(project: Path) -> None:
    before = linked(project, "data/mine/*.jsonl")
    write(project / "data" / "mine" / "new.jsonl")
    assert set(linked(project, "data/mine/*.jsonl")) - set(before) == {"train-00/new.jsonl"}


def test_linked_folders_are_gone_through_once(project: Path) -> None:
    mine = project / "data" / "mine"
    write(project / "far" / "f.jsonl")
    (mine / "far").symlink_to("../../far")
    for number, place in enumerate((".", "..", "../../far", "/")):
        (project / "far" / f"loop{number}").symlink_to(place)
        (mine / f"loop{number}").symlink_to("loop0")
    assert [name for name in linked(project, "data/mine/far")] == ["train-00/f.jsonl"]
    assert linked(project, "data/mine") == [f"train-00/{name}" for name in ("a.jsonl", "b.jsonl", "deep/c.jsonl", "e.txt", "far/f.jsonl")]


def test_a_name_that_looks_like_a_pattern_may_be_a_file(project: Path) -> None:
    write(project / "rows[1].jsonl")
    write(project / "rows1.jsonl")
    assert linked(project, '"rows[1].jsonl"') == ["train-00/rows[1].jsonl"]


@pytest.mark.parametrize("path", ["s3://bucket/rows.jsonl", "https://a.b/rows.jsonl", "pypi:x==1/rows.jsonl", "owner/name"])
def test_sources_elsewhere_are_not_looked_for_here(project: Path, path: str) -> None:
    assert linked(project, path) == []


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("data/mine/*.csv", r"datasets\[0\]\.path: 'data/mine/\*\.csv' matches no file"),
        ("none.jsonl", r"'none\.jsonl' does not exist"),
        ("data/**/*.jsonl", r"holds .*00000\.jsonl, which regrow itself writes"),
        ("data", r"holds .*00000\.jsonl, which regrow itself writes"),
        ("shipped/train-00", r"holds .*00000\.jsonl, which regrow itself writes"),
        ("bytes", r"a file is named 'train-00/\\udcff\.jsonl', which is not UTF-8"),
        ("data/*/../../x.jsonl", "is no pattern"),
        (".", "is the project's folder"),
    ],
)
def test_what_cannot_be_linked_is_refused(project: Path, path: str, message: str) -> None:
    with pytest.raises(RegrowError, match=message):
        linked(project, "./" if path == "." else path)


def test_documents_to_pretrain_on_are_linked_like_rows(project: Path) -> None:
    text = "base_model: a/b\nlearning_rate: 1e-4\nmax_steps: 5\npretraining_dataset:\n  - path: {}\n"
    recipe = check_source(parse(text.format("rows.jsonl"), "params.yaml"))
    assert list(local_files(Project(project), recipe)) == ["train-00/rows.jsonl"]
    with pytest.raises(RegrowError, match=r"pretraining_dataset\[0\]\.path: 'none\.jsonl'"):
        local_files(Project(project), check_source(parse(text.format("none.jsonl"), "params.yaml")))


def test_all_files_of_a_pattern_are_taken_whatever_their_names(tmp_path: Path) -> None:
    for name in ("train", "test"):
        write(tmp_path / "corpus" / f"{name}.jsonl", f'{{"n": "{name}"}}\n')
    fetched = fetch_rows(tmp_path, tmp_path / "corpus", path="corpus/*.jsonl")
    assert [row["n"] for row in fetched.rows] == ["test", "train"] and fetched.said == []

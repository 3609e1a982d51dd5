"""`path: json` with `data_files`, as the `datasets` library names files of a format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import RegrowError
from tests.fetch.made import make_wheel, serve, write
from tests.fetch.rows import fetch_project, write_arrow, write_lines, write_parquet
from tests.fetch.test_web import Site, site

__all__ = ["site"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a/x.jsonl", "a/y.jsonl", "b/x.jsonl", "a/.hidden.jsonl", "with space [1]/é.jsonl"):
        write_lines(tmp_path / name, [{"n": name}])
    return tmp_path


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ("a/x.jsonl", ["a/x.jsonl"]),
        ("./a/../a/x.jsonl", ["a/x.jsonl"]),
        (["b/x.jsonl", "a/x.jsonl"], ["b/x.jsonl", "a/x.jsonl"]),
        ("*/x.jsonl", ["a/x.jsonl", "b/x.jsonl"]),
        (["a/*.jsonl", "b/?.jsonl"], ["a/x.jsonl", "a/y.jsonl", "b/x.jsonl"]),
        ("with space [1]/é.jsonl", ["with space [1]/é.jsonl"]),
        ({"train": ["b/x.jsonl"], "other": "a/y.jsonl"}, ["b/x.jsonl"]),
    ],
)
def test_a_format_reads_the_files_that_data_files_names(root: Path, files: Any, expected: list[str]) -> None:
    fetched = fetch_project(root, {"path": "json", "data_files": files, "type": "completion"})
    assert fetched.files == expected and [row["n"] for row in fetched.rows] == expected
    assert {source["path"] for source in fetched.sources} == {"json"}


def test_splits_of_data_files_are_chosen_like_others(root: Path) -> None:
    entry = {"path": "json", "data_files": {"test": "a/y.jsonl", "train": "a/x.jsonl", "zeta": ["b/x.jsonl"]}, "type": "completion"}
    assert fetch_project(root, entry | {"split": "zeta+test"}).files == ["b/x.jsonl", "a/y.jsonl"]
    assert fetch_project(root, entry | {"split": "all"}).files == ["a/x.jsonl", "a/y.jsonl", "b/x.jsonl"]
    evaluated = fetch_project(root, entry, test_datasets=[entry])
    assert [(source["split"], source["file"]) for source in evaluated.sources] == [("train", "a/x.jsonl"), ("test", "a/y.jsonl")]
    of_folder = fetch_project(root, {"path": "./a", "data_files": {"dev": "x.jsonl", "train": "a/y.jsonl"}, "type": "completion"})
    assert of_folder.files == ["y.jsonl"]
    with pytest.raises(RegrowError, match=r"datasets\[0\] has the splits dev and no train"):
        fetch_project(root, {"path": "./a", "data_files": {"dev": "x.jsonl"}, "type": "completion"})


def test_every_format_is_read_whatever_the_suffix(root: Path) -> None:
    rows = [{"text": "x"}, {"text": "y"}]
    write_parquet(root / "rows", rows)
    assert fetch_project(root, {"path": "parquet", "data_files": "rows", "type": "completion"}).rows == rows
    write_arrow(root / "rows", rows)
    assert fetch_project(root, {"path": "arrow", "data_files": "rows", "type": "completion"}).rows == rows
    write(root / "rows", "text\nx\ny\n")
    assert fetch_project(root, {"path": "csv", "data_files": "rows", "type": "completion"}).rows == rows
    write(root / "rows", "x\ny\n")
    assert fetch_project(root, {"path": "text", "data_files": ["rows"], "type": "completion"}).rows == rows
    write(root / "rows", '[{"text":"x"},\n{"text":"y"}]')
    documents = [{"path": "json", "data_files": "rows", "split": "train", "skip": 1}]
    text = fetch_project(root, pretraining_dataset=documents, max_steps=9)
    assert text.rows == rows[1:] and text.numbers == [[1]]


def test_files_elsewhere_are_named_without_digest_and_query(root: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.body = b'{"n": 1}\n'
    make_wheel(root / "wheels", {"tiny_rows/a.jsonl": '{"n": 2}\n'})
    serve(root / "wheels", monkeypatch)
    other = site.url.replace("/rows", "/more/rows")
    files = [f"{site.url}?v=7", "a/x.jsonl", other, "pypi:tiny-rows==1.0/tiny_rows/a.jsonl"]
    fetched = fetch_project(root, {"path": "json", "data_files": files, "type": "completion"})
    assert fetched.files == [site.url, "a/x.jsonl", other, "pypi:tiny-rows==1.0/tiny_rows/a.jsonl"]
    assert [row["n"] for row in fetched.rows] == [1, "a/x.jsonl", 1, 2]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"path": "json"}, r"datasets\[0\]\.path|'json' is a format.*\n.*data_files"),
        ({"path": "json", "data_files": "no.jsonl"}, r"datasets\[0\]\.data_files: 'no\.jsonl' does not exist"),
        ({"path": "json", "data_files": "c/*.jsonl"}, r"datasets\[0\]\.data_files: 'c/\*\.jsonl' matches no file"),
        ({"path": "json", "data_files": "a"}, r"datasets\[0\]\.data_files: 'a' is a folder\.\n.*a/\*\.jsonl"),
        ({"path": "json", "data_files": "owner/rows"}, r"datasets\[0\]\.data_files: 'owner/rows' does not exist"),
        ({"path": "json", "data_files": []}, r"datasets\.0\.data_files"),
        ({"path": "json", "data_files": {}}, r"datasets\.0\.data_files"),
        ({"path": "json", "data_files": " "}, r"datasets\.0\.data_files.*names nothing"),
        ({"path": "json", "data_files": "hf://datasets/owner/name/rows.jsonl"}, r"address on the hub; Write `path: owner/name`"),
        ({"path": "csv", "data_files": "a/x.jsonl", "ds_type": "json"}, r"ds_type: \"json\" — path says csv; remove ds_type"),
        (
            {"path": "json", "data_files": "a/x.jsonl", "revision": "main"},
            r"revision is 'main', but datasets\[0\]\.data_files 'a/x\.jsonl'",
        ),
        ({"path": "parquet", "data_files": "a/x.jsonl"}, r"cannot be read as Parquet"),
    ],
)
def test_what_cannot_work_is_one_message(root: Path, entry: dict[str, Any], message: str) -> None:
    with pytest.raises(RegrowError, match=message):
        fetch_project(root, entry | {"type": "completion"})

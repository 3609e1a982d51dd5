"""`regrow export packed`: other trainers get the very rows that ours trains, or nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from typer.testing import CliRunner

from pipeline import export
from pipeline.bins import Bins
from pipeline.cli import app
from pipeline.digest import digest_file
from pipeline.errors import RegrowError
from pipeline.export import files
from pipeline.tokens import TokenTable
from stages.train.data.bins import BinDataset
from tests.pipeline.test_inspect import publish as publish_rows
from tests.tiny import publish_bins


def run(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, ["export", "packed", *map(str, arguments)], env={"COLUMNS": "200"})
    if result.exception is not None:
        raise result.exception
    return result.stdout


def rows_of(folder: Path, split: str, kind: str) -> Iterator[dict[str, Any]]:
    for path in sorted((folder / split).iterdir()):
        if kind == "jsonl":
            yield from map(json.loads, path.read_text().splitlines())
        elif kind == "arrow":
            yield from pa.ipc.open_file(path).read_all().to_pylist()
        else:
            yield from parquet.read_table(path).to_pylist()


@pytest.mark.parametrize("kind", ["arrow", "parquet", "jsonl"])
def test_rows_are_those_that_train_sees(here: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In several files, some bins at a time."""
    monkeypatch.setattr(files, "_TOKENS_AT_ONCE", 100)
    monkeypatch.setattr(files, "_FILE_TOKENS", 200)
    out = tmp_path / "made" / "here"
    said = run(out, "--format", kind)
    tokens = TokenTable(here / "data/tokens")
    for split in ("train", "eval"):
        bins = Bins.load(here / f"data/packed/{split}.arrow")
        expected = BinDataset(bins, tokens, 0)
        found = list(rows_of(out, split, kind))
        assert len(found) == len(bins)
        for number, row in enumerate(found):
            assert set(row) == {"input_ids", "labels", "position_ids", "seq_lengths"}
            for name, values in expected[number].items():
                assert row[name] == values.tolist()  # type: ignore[attr-defined]
            assert row["seq_lengths"] == [length for _, _, length in bins.spans(number)]
    assert len(list((out / "train").iterdir())) > 1 and "5 rows (523 tokens) of train, 2 rows" in said
    assert [path.name for path in out.parent.iterdir()] == ["here"]


def test_the_manifest_lists_digests_and_counts(here: Path, tmp_path: Path) -> None:
    run(tmp_path / "out", "--format", "jsonl")
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    packed = json.loads((here / "data/packed/manifest.json").read_text())
    assert manifest["content_digest"] == packed["content"]["content_digest"]
    assert set(manifest["files"]) == {"README.md", "train/00000.jsonl", "eval/00000.jsonl"}
    assert all(digest_file(tmp_path / "out" / name) == facts["sha256"] for name, facts in manifest["files"].items())
    rows = list(rows_of(tmp_path / "out", "train", "jsonl"))
    trained = sum(label != -100 for row in rows for label in row["labels"])
    assert manifest["splits"]["train"] == {"rows": 5, "documents": 11, "tokens": 523, "trained_tokens": trained}
    assert str(here) not in (tmp_path / "out/README.md").read_text() + json.dumps(manifest)


@pytest.mark.parametrize("kind", ["arrow", "parquet", "json"])
def test_the_datasets_library_loads_it(here: Path, tmp_path: Path, kind: str) -> None:
    from datasets import load_dataset

    suffix = "jsonl" if kind == "json" else kind
    run(tmp_path / "out", "--format", suffix)
    loaded = load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in loaded.items()} == {"train": 5, "eval": 2}
    assert loaded["train"][0] == next(rows_of(tmp_path / "out", "train", suffix))
    named = load_dataset(kind, data_files=str(tmp_path / "out/train" / f"*.{suffix}"), cache_dir=str(tmp_path / "cache"))
    assert named["train"]["seq_lengths"] == loaded["train"]["seq_lengths"]


def test_a_folder_with_something_in_it_is_refused(here: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RegrowError, match="holds files already"):
        run(tmp_path / "full")
    with pytest.raises(RegrowError, match="is a file"):
        run(tmp_path / "full/mine.txt")
    run(tmp_path / "empty")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]
    assert {path.name for path in (tmp_path / "empty").iterdir()} == {"README.md", "manifest.json", "train", "eval"}


def test_a_failure_leaves_nothing(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(export, "readme", fail)
    with pytest.raises(KeyboardInterrupt):
        export.export_packed(here / "data", tmp_path / "out", "arrow", export.Progress())
    assert list(tmp_path.iterdir()) == []


def small(data: Path, **row: Any) -> Path:
    """A project of one row in one bin, and no evaluation rows."""
    project = data.parent
    for name in ("dvc.yaml", "params.yaml"):
        (project / name).touch()
    publish_rows(data, [{"ids": [5, 6, 7], "mask": [1, 1, 1]} | row], "a.jsonl")
    publish_bins(data, [[0]])
    return project


def test_a_split_without_rows_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(small(tmp_path / "data"))
    run(tmp_path / "out", "--format", "arrow")
    assert not (tmp_path / "out/eval").exists() and "split: eval" not in (tmp_path / "out/README.md").read_text()
    (row,) = rows_of(tmp_path / "out", "train", "arrow")
    assert row == {"input_ids": [5, 6, 7], "labels": [-100, 6, 7], "position_ids": [0, 1, 2], "seq_lengths": [3]}


def test_rows_with_two_answers_have_no_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(small(tmp_path / "data", rejected=(np.array([5, 6]), np.array([0, 1]))))
    with pytest.raises(RegrowError, match="two answers"):
        run(tmp_path / "out")


def test_a_plan_for_other_tokens_is_not_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = small(tmp_path / "data")
    monkeypatch.chdir(project)
    manifest = json.loads((project / "data/packed/manifest.json").read_text())
    manifest["content"]["content_digest"]["train"] = "0" * 64
    (project / "data/packed/manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RegrowError, match="does not fit data/tokens"):
        run(tmp_path / "out")
    assert not (tmp_path / "out").exists()

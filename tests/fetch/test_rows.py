"""Dataset files arrive in the artifact, and what cannot be read is refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.errors import RegrowError
from tests.fetch.made import ROWS, fetch, link, write


def entry(path: str = "rows.jsonl", **more: object) -> dict[str, object]:
    return {"path": path, "type": "completion", **more}


def test_linked_files_are_listed_in_order(workspace: Path, tmp_path: Path) -> None:
    odd = b'\xef\xbb\xbf[ {"text": "\xff no utf-8"} ]\r\n\r\n'
    array = tmp_path / "elsewhere" / "array.json"
    array.write_bytes(odd)
    link(workspace, "train-01", array)
    link(workspace, "test-00", write(tmp_path / "elsewhere" / "held.jsonl", "{}\n"))
    artifacts, metrics, _ = fetch(workspace, datasets=[entry(), entry("./array.json")], test_datasets=[entry("~/held.jsonl")])
    raw = artifacts["raw"]
    converted = b'{"text":"\xff no utf-8"}\n'
    assert (raw.path / "train-00" / "00000.jsonl").read_text() == ROWS
    assert (raw.path / "train-01" / "00000.jsonl").read_bytes() == converted
    assert not any(path.is_symlink() for path in raw.path.rglob("*"))
    same = {"numbers": None, "revision": None}
    assert raw.content["sources"] == [
        {"name": name, "split": split, "path": path, "file": file, "rows_file": f"{name}/00000.jsonl", **same}
        for name, split, path, file in (
            ("train-00", "train", "rows.jsonl", "rows.jsonl"),
            ("train-01", "train", "./array.json", "array.json"),
            ("test-00", "test", "~/held.jsonl", "held.jsonl"),
        )
    ]
    assert metrics["files"] == 3
    assert metrics["bytes"] == len(ROWS) + len(converted) + 3


def test_a_link_whose_target_went_away_is_named(workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "rows.jsonl").unlink()
    with pytest.raises(RegrowError, match=r"datasets\[0\]\.path names rows\.jsonl.*not there"):
        fetch(workspace)
    assert not (workspace / "data" / "raw").exists()


def test_a_revision_of_a_local_file_is_refused(workspace: Path) -> None:
    with pytest.raises(RegrowError, match=r"datasets\[0\]\.revision is 'main'.*not on the hub"):
        fetch(workspace, datasets=[entry(revision="main")])


def test_two_runs_write_the_same_bytes_and_no_path_of_this_disk(workspace: Path, tmp_path: Path) -> None:
    first, _, _ = fetch(workspace)
    digests = {name: artifact.digest for name, artifact in first.items()}
    other = tmp_path / "other" / "place"
    (workspace / "data" / "sources").rename(tmp_path / "sources")
    (other / "data").mkdir(parents=True)
    (tmp_path / "sources").rename(other / "data" / "sources")
    second, _, _ = fetch(other)
    assert {name: artifact.digest for name, artifact in second.items()} == digests
    for artifact in second.values():
        for file in artifact.path.rglob("*"):
            assert file.is_dir() or str(tmp_path).encode() not in file.read_bytes(), file


def test_tokenizer_and_weights_lie_apart(workspace: Path) -> None:
    artifacts, _, _ = fetch(workspace)
    assert sorted(artifacts["base"].files) == ["config.json", "generation_config.json", "model.safetensors"]
    assert sorted(artifacts["tokenizer"].files) == ["chat_template.jinja", "tokenizer.json", "tokenizer_config.json"]
    settings = json.loads((artifacts["tokenizer"].path / "tokenizer_config.json").read_text())
    assert not settings.keys() & {"name_or_path", "is_local", "local_files_only", "vocab_file"}

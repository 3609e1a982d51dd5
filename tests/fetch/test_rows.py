"""Dataset files arrive byte for byte, and what cannot be read is refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.errors import RegrowError
from tests.fetch.made import ROWS, fetch, link, write


def entry(path: str = "rows.jsonl", **more: object) -> dict[str, object]:
    return {"path": path, "type": "completion", **more}


def test_linked_files_are_copied_verbatim_and_listed_in_order(workspace: Path, tmp_path: Path) -> None:
    odd = b'\xef\xbb\xbf[ {"text": "\xff no utf-8"} ]\r\n\r\n'
    array = tmp_path / "elsewhere" / "array.json"
    array.write_bytes(odd)
    link(workspace, "train-01", array)
    link(workspace, "test-00", write(tmp_path / "elsewhere" / "held.jsonl", "{}\n"))
    artifacts, metrics, _ = fetch(workspace, datasets=[entry(), entry("./array.json")], test_datasets=[entry("~/held.jsonl")])
    raw = artifacts["raw"]
    assert (raw.path / "train-00" / "rows.jsonl").read_text() == ROWS
    assert (raw.path / "train-01" / "array.json").read_bytes() == odd
    assert not any(path.is_symlink() for path in raw.path.rglob("*"))
    assert raw.content["sources"] == [
        {"name": "train-00", "split": "train", "path": "rows.jsonl", "file": "rows.jsonl", "format": "jsonl", "revision": None},
        {"name": "train-01", "split": "train", "path": "./array.json", "file": "array.json", "format": "json", "revision": None},
        {"name": "test-00", "split": "test", "path": "~/held.jsonl", "file": "held.jsonl", "format": "jsonl", "revision": None},
    ]
    assert metrics["files"] == 3
    assert metrics["bytes"] == len(ROWS) + len(odd) + 3


def test_a_suffix_without_a_reader_is_refused_unless_ds_type_says_what_it_is(workspace: Path, tmp_path: Path) -> None:
    link(workspace, "train-01", write(tmp_path / "rows.txt"))
    with pytest.raises(RegrowError, match=r"datasets\[1\]\.path '\./rows\.txt'.*\n.*\.jsonl.*ds_type"):
        fetch(workspace, datasets=[entry(), entry("./rows.txt")])
    artifacts, _, _ = fetch(workspace, datasets=[entry(), entry("./rows.txt", ds_type="json")])
    assert artifacts["raw"].content["sources"][1]["format"] == "json"


def test_a_folder_gives_its_training_files_or_those_that_data_files_names(workspace: Path, tmp_path: Path) -> None:
    for name in ("a/train-1.jsonl", "a/train-2.jsonl", "test.jsonl", "notes.md"):
        write(tmp_path / "corpus" / name)
    link(workspace, "train-01", tmp_path / "corpus")

    def files(**more: object) -> tuple[list[str], list[str]]:
        artifacts, _, said = fetch(workspace, datasets=[entry(), entry("./corpus", **more)])
        return [source["file"] for source in artifacts["raw"].content["sources"][1:]], said

    chosen, said = files()
    assert chosen == ["a/train-1.jsonl", "a/train-2.jsonl"]
    assert any("not on test.jsonl" in line for line in said)
    assert files(data_files="*.jsonl")[0] == ["a/train-1.jsonl", "a/train-2.jsonl", "test.jsonl"]
    with pytest.raises(RegrowError, match=r"datasets\[1\]\.data_files: no file matches 'c\*'.*\n.*notes\.md"):
        files(data_files=["c*"])


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

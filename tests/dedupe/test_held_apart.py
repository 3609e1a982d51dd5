"""How rows of `dedupe.against` come to dedupe: fetched and tokenized as sources of their own, and nothing else runs again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.artifact import open_artifact
from pipeline.errors import RegrowError
from tests.fetch.rows import fetch_project, write_lines
from tests.tokenize.test_sources import TEXT, tokenize


def lines(*texts: str) -> bytes:
    return b"".join(json.dumps({"text": text}).encode() + b"\n" for text in texts)


def sources(workspace: Path) -> list[tuple[str, str, int]]:
    found: list[dict[str, Any]] = open_artifact(workspace / "data" / "tokens").content["sources"]
    return [(source["name"], source["split"], source["rows"]) for source in found]


def test_the_split_test_is_fetched_unless_another_is_named(tmp_path: Path) -> None:
    for name in ("train", "test"):
        write_lines(tmp_path / "bench" / f"{name}.jsonl", [{"text": name}])
    write_lines(tmp_path / "rows.jsonl", [{"text": "rows"}])
    entry = {"path": "bench", "type": "completion"}
    fetched = fetch_project(tmp_path, TEXT, dedupe={"against": [entry, entry | {"split": "train"}]})
    assert [(source["name"], source["split"]) for source in fetched.sources] == [
        ("train-00", "train"),
        ("against-00", "against"),
        ("against-01", "against"),
    ]
    assert [row["text"] for row in fetched.rows] == ["rows", "test", "train"] and fetched.said == []


def test_messages_name_the_entry(tmp_path: Path) -> None:
    write_lines(tmp_path / "rows.jsonl", [{"text": "rows"}])
    write_lines(tmp_path / "b.jsonl", [{"text": "b"}])
    with pytest.raises(RegrowError, match=r"dedupe\.against\[0\]\.split: there is no split 'gold'"):
        fetch_project(tmp_path, TEXT, dedupe={"against": [{"path": "b.jsonl", "type": "completion", "split": "gold"}]})


def test_its_rows_become_tokens_by_its_own_keys(tmp_path: Path) -> None:
    against = {"dedupe": {"against": [{"path": "b", "type": "completion", "field": "question"}]}}
    asked = b'{"question": "one"}\n{"question": "two"}\n'
    table, _ = tokenize(tmp_path, {"train-00": [lines("a")], "against-00": [asked]}, **against)
    assert sources(tmp_path) == [("train-00", "train", 1), ("against-00", "against", 2)] and len(table) == 3


def test_holding_rows_apart_tokenizes_no_other_row_again(tmp_path: Path) -> None:
    rows = {"train-00": [lines("a", "b")]}
    tokenize(tmp_path, rows)
    _, said = tokenize(tmp_path, rows | {"against-00": [lines("c")]}, dedupe={"against": [TEXT | {"path": "b"}], "near": {}})
    assert any("1 of 2 blocks known" in line for line in said.lines)

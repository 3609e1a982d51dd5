"""Rows files of every shape, what is said of them, and what the manifest says."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.artifact import open_artifact
from pipeline.errors import RegrowError
from pipeline.progress import Progress
from pipeline.tokens import TokenTable
from stages.tokenize import STAGE
from tests.tiny import CHATML, publish_artifact, run_stage, save_tokenizer
from tests.tokenize.rows import chat, full_text

TEXT = {"path": "rows.jsonl", "type": "completion"}


class Said(Progress):
    """What a stage says."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)


def tokenize(workspace: Path, files: Mapping[str, Sequence[bytes]], template: str = CHATML, **options: Any) -> tuple[TokenTable, Said]:
    """Tokenize rows files by their slots (``train-00``); ``options`` as of params.yaml."""
    sources: list[dict[str, Any]] = []

    def fill(folder: Path) -> None:
        for slot, contents in files.items():
            (folder / slot).mkdir()
            for number, content in enumerate(contents):
                path = f"{slot}/{number:05d}.jsonl"
                (folder / path).write_bytes(content)
                names = {"name": slot, "split": slot.partition("-")[0], "path": f"{slot}.d", "file": f"{number}.jsonl"}
                sources.append(names | {"rows_file": path, "numbers": None})

    publish_artifact(workspace / "data", "raw", fill, sources=sources)
    publish_artifact(workspace / "data", "tokenizer", lambda folder: save_tokenizer(folder, template))
    said = Said()
    run_stage(STAGE, workspace, {"datasets": [TEXT]} | options, progress=said)
    return TokenTable(workspace / "data" / "tokens"), said


def facts(workspace: Path) -> dict[str, Any]:
    return dict(open_artifact(workspace / "data" / "tokens").content)


@pytest.mark.parametrize(
    ("content", "rows", "reasons"),
    [
        (b'{"text": "ab"}\n{"text": "cd"}', ["ab", "cd"], {}),
        (b'{"text": "ab"}\r\n\r\n   \r\n{"text": "cd"}\r\n', ["ab", "cd"], {}),
        (b'\xef\xbb\xbf{"text": "ab"}\n\n\n', ["ab"], {}),
        (b'{"text": "a\x00b"}\n{"text": "a\\u0000b"}\n', ["a\x00b"], {"malformed JSON": 1}),
        (b'{"text": "ab"}\n\x00\x00\n{"text": "c', ["ab"], {"malformed JSON": 2}),
        (b'{"text": "ab"}\n["text"]\n"text"\n{"text": "\xff"}\n', ["ab"], {"not a JSON object": 2, "not valid UTF-8": 1}),
    ],
)
def test_lines_of_every_shape(tmp_path: Path, content: bytes, rows: list[str], reasons: dict[str, int]) -> None:
    table, _ = tokenize(tmp_path, {"train-00": [content]})
    assert [full_text(table, row).removesuffix("<|im_end|>") for row in range(len(table))] == rows
    assert facts(tmp_path)["sources"][0]["rejected"] == reasons


@pytest.mark.parametrize("content", [b"", b"\n\n  \n", b"\r\n"])
def test_a_file_without_rows_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(RegrowError, match=r"train-00.d \(0.jsonl\): no row can be used: it holds no rows"):
        tokenize(tmp_path, {"train-00": [content]})


def test_no_row_of_a_source_was_selected(tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        (folder / "rows.jsonl").write_bytes(b"")
        (folder / "numbers").write_bytes(b"")

    source = {"name": "train-00", "split": "train", "path": "a", "file": "b", "rows_file": "rows.jsonl", "numbers": "numbers"}
    publish_artifact(tmp_path / "data", "raw", fill, sources=[source])
    publish_artifact(tmp_path / "data", "tokenizer", save_tokenizer)
    with pytest.raises(RegrowError, match=r"a \(b\): no row can be used: it holds no rows"):
        run_stage(STAGE, tmp_path, {"datasets": [TEXT]})


def test_one_file_twice_and_as_a_test_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stages.tokenize import work

    made: list[int] = []
    original = work.tokenize_block
    monkeypatch.setattr(work, "tokenize_block", lambda raw, *rest: made.append(len(raw)) or original(raw, *rest))
    content = b'{"text": "ab"}\n{"text": "cd"}\n'
    files = {"train-00": [content, content], "test-00": [content]}
    table, _ = tokenize(tmp_path, files, test_datasets=[TEXT])
    assert len(made) == 1
    assert table.source.tolist() == [0, 0, 1, 1, 2, 2] and table.row.tolist() == [0, 1] * 3
    assert (table.digest[0] == table.digest[4]).all() and (table.digest[0] != table.digest[1]).any()


@pytest.mark.parametrize(
    ("ids", "reason"),
    [([5, 10**30], "token ids from 5 to 1" + "0" * 30), ([-1, 5], "token ids from -1 to 5"), ([5, 259], "token ids from 5 to 259")],
)
def test_ready_ids_that_the_tokenizer_does_not_have(tmp_path: Path, ids: list[int], reason: str) -> None:
    rows = [{"input_ids": some, "labels": some, "attention_mask": [1, 1]} for some in (ids, [5, 258])]
    table, _ = tokenize(tmp_path, {"train-00": ["\n".join(map(json.dumps, rows)).encode()]}, datasets=[{"path": "x", "type": None}])
    assert len(table) == 1
    assert facts(tmp_path)["sources"][0]["rejected"] == {f"{reason}; the tokenizer has 259": 1}


UPPER = "{% for m in messages %}[{{ m.role }}]{{ m.content | upper }}<|im_end|>{% endfor %}"


def test_rows_rendered_the_slow_way_are_counted_and_said(tmp_path: Path) -> None:
    rows = [chat(("user", "yes"), ("assistant", "yes"), ("assistant", text)) for text in ("no", "why")]
    content = "\n".join(map(json.dumps, rows)).encode()
    entry = {"path": "x", "type": "chat_template"}
    _, said = tokenize(tmp_path / "slow", {"train-00": [content, content]}, UPPER, datasets=[entry])
    assert [source["slow_rows"] for source in facts(tmp_path / "slow")["sources"]] == [2, 2]
    assert [line for line in said.lines if "turn by turn" in line] == [
        f"train-00.d ({number}.jsonl): 2 rows rendered turn by turn, the slow way: in one rendering of them the turns cannot be told apart."
        for number in (0, 1)
    ]
    _, said = tokenize(tmp_path / "fast", {"train-00": [content]}, datasets=[entry])
    assert facts(tmp_path / "fast")["sources"][0]["slow_rows"] == 0 and not [line for line in said.lines if "turn by turn" in line]


def test_what_the_user_should_know_of_an_entry_is_said_once_however_many_files_it_has(tmp_path: Path) -> None:
    silent = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    content = json.dumps(chat(("user", "a"), ("assistant", "b"))).encode()
    entry = {"path": "x", "type": "chat_template"}
    _, said = tokenize(tmp_path, {"train-00": [content] * 3, "train-01": [content]}, silent, datasets=[entry, entry])
    warnings = [line for line in said.lines if line.startswith("warning")]
    assert [line.partition(": The chat template does not print")[0] for line in warnings] == [
        "warning: datasets[0] (train-00.d)",
        "warning: datasets[1] (train-01.d)",
    ]


def test_an_entry_that_cannot_work_is_named(tmp_path: Path) -> None:
    content = json.dumps(chat(("user", "a"), ("assistant", "b"))).encode()
    entries = [
        {"path": "x", "type": "chat_template"},
        {"path": "x", "type": "chat_template", "chat_template": "jinja", "chat_template_jinja": "{% if"},
    ]
    with pytest.raises(RegrowError, match=r"^datasets\[1\] \(train-01.d\): "):
        tokenize(tmp_path, {"train-00": [content], "train-01": [content]}, datasets=entries)


def test_both_answers_are_counted(tmp_path: Path) -> None:
    row = {"prompt": "ab", "chosen": "cdef", "rejected": "g"}
    table, _ = tokenize(tmp_path, {"train-00": [json.dumps(row).encode()]}, rl="dpo", datasets=[{"path": "x", "type": None}])
    lengths = [len(table.ids(0)), len(table.rejected_ids(0))]
    described = facts(tmp_path)
    assert (described["tokens"], described["sources"][0]["longest"]) == (sum(lengths), max(lengths))
    assert described["trained_tokens"] == int(np.sum(table.mask(0)) + np.sum(table.rejected_mask(0)))
    assert table.longest.tolist() == [max(lengths)]

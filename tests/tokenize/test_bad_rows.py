"""Rows and files that no reader or template can take: a row is counted and named, a file is refused by its own name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.artifact import open_artifact
from pipeline.errors import RegrowError
from tests.tiny import CHATML
from tests.tokenize.rows import chat, tokenize, tokenize_file

GOOD = chat(("user", "q"), ("assistant", "a"))
SURROGATE = "text with a lone surrogate, which no UTF-8 can hold"


def rejected(workspace: Path) -> dict[str, int]:
    counts: dict[str, int] = open_artifact(workspace / "data" / "tokens").content["sources"][0]["rejected"]
    return counts


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (json.dumps(chat(("user", "q"), ("assistant", "\ud800"))), SURROGATE),
        (json.dumps(chat(("user", "\udc00"), ("assistant", "a"))), SURROGATE),
        ('{"messages": [], "n": ' + "1" * 5000 + "}", "malformed JSON"),
        ({"messages": "[" * 100_000}, "column 'messages' is text that is not JSON"),
    ],
)
def test_a_row_that_no_reader_can_take_is_left_out(tmp_path: Path, row: Any, reason: str) -> None:
    table = tokenize(tmp_path, [GOOD, row, GOOD])
    assert table.row.tolist() == [0, 2]
    assert rejected(tmp_path) == {reason: 1}


def test_a_lone_surrogate_in_a_completion_is_left_out(tmp_path: Path) -> None:
    assert len(tokenize(tmp_path, [{"text": "a"}, {"text": "\ud800"}], type="completion", field="text")) == 1
    assert rejected(tmp_path) == {SURROGATE: 1}


@pytest.mark.parametrize(
    "expression",
    [
        "{{ 1 / 0 }}",
        "{% for i in range(10**9) %}{% endfor %}",
        "{{ 10.0 ** 400 }}",
        "{{ 'x'.index('y') }}",
        "{{ 'x' * 10 ** 15 }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ raise_exception(messages[0].content) }}",
    ],
)
def test_a_row_on_which_the_template_fails_is_left_out(tmp_path: Path, expression: str) -> None:
    failing = "{% if messages[0].content.startswith('bad') %}" + expression + "{% endif %}" + CHATML
    table = tokenize(tmp_path, [GOOD, chat(("user", "bad \ud800"), ("assistant", "a"))], chat_template=failing)
    assert len(table) == 1
    [reason] = rejected(tmp_path)
    assert reason.startswith("the chat template refuses it: ")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.jsonl", (json.dumps(GOOD) + "\n").encode("utf-16"), "is UTF-16 text"),
        ("rows.json", json.dumps([GOOD]).encode("utf-16"), "is UTF-16 text"),
        ("rows.json", b"[" * 100_000, "is not valid JSON: it is nested too deeply"),
        ("rows.json", b"[{]", "is not valid JSON: Expecting"),
        ("rows.json", b'[{"a": "\xff"}]', "is not valid JSON: 'utf-8'"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_by_the_name_it_has_in_the_recipe(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    with pytest.raises(RegrowError, match=rf"^\./my/{name} \({name}\) {message}") as caught:
        tokenize_file(tmp_path, name, content)
    assert str(tmp_path) not in str(caught.value)

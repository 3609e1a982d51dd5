"""Rows and files that no reader or template can take: a row is counted and named, a file is refused by its own name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.artifact import open_artifact
from pipeline.errors import RegrowError
from tests.tiny import CHATML
from tests.tokenize.rows import chat, tokenize

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


def test_strict_makes_an_error_of_a_row_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(
        RegrowError, match=r"2 rows cannot be used, and tokenize.strict is true:\n.*malformed JSON \(first: line or item 2\)"
    ):
        tokenize(tmp_path, [GOOD, "{", GOOD, "{"], strict=True)
    assert len(tokenize(tmp_path / "lax", [GOOD, "{"])) == 1

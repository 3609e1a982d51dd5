"""Prompts that the model answers itself: their ids, and every other column, without loss."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.tokens import TokenTable
from tests.tokenize.aims import left_out, tokenize_for
from tests.tokenize.rows import decode

GRPO = {"rl": "grpo"}
QUESTION = {"role": "user", "content": "2 + 2?"}
ASKED = "<|im_start|>user\n2 + 2?<|im_end|>\n<|im_start|>assistant\n"


def rows_of(workspace: Path, rows: list[Any], **entry: Any) -> TokenTable:
    return tokenize_for(workspace, GRPO, rows, **entry)


def test_messages_end_where_the_model_answers(tmp_path: Path) -> None:
    table = rows_of(tmp_path, [{"messages": [QUESTION], "answer": 4}], type="chat_template")
    assert decode(table.ids(0).tolist()) == ASKED
    assert not table.mask(0).any()
    assert table.reference(0) == {"prompt": [QUESTION], "answer": 4}


def test_names_of_roles_and_keys_are_mapped(tmp_path: Path) -> None:
    row = {"chat": [{"from": "human", "value": "2 + 2?"}]}
    entry = {"field_messages": "chat", "message_property_mappings": {"role": "from", "content": "value"}}
    table = rows_of(tmp_path, [row], type="chat_template", **entry)
    assert decode(table.ids(0).tolist()) == ASKED and table.reference(0) == {"prompt": [QUESTION]}


def test_text_is_a_prompt_as_it_is(tmp_path: Path) -> None:
    table = tokenize_for(tmp_path, GRPO, [{"prompt": "2 + 2 ="}], begins=True)
    assert decode(table.ids(0).tolist()) == "<|im_start|>2 + 2 =" and table.reference(0) == {"prompt": "2 + 2 ="}


def test_columns_come_through_unchanged(tmp_path: Path) -> None:
    row = {"prompt": "q", "number": 10**30, "float": 0.1, "nested": {"b": [1, None, "ß\u2028"], "a": True}, "nothing": None}
    table = rows_of(tmp_path, [row])
    assert table.reference(0) == row and json.dumps(table.reference(0)["float"]) == "0.1"


def test_rows_that_differ_in_a_column_alone_are_no_duplicates(tmp_path: Path) -> None:
    rows = [{"prompt": "q", "answer": 1}, {"prompt": "q", "answer": 2}, {"answer": 1, "prompt": "q"}]
    digests = rows_of(tmp_path, rows).digest.tolist()
    assert digests[0] != digests[1] and digests[0] == digests[2]


FUNCTIONS = """
def plain(row):
    return {"prompt": row["q"] + " =", "answer": row["a"]}


def transform(cfg, **keywords):
    def change(example, tokenizer=None):
        return {"prompt": [{"role": "user", "content": example["q"]}], "end": tokenizer.eos_token, "rl": cfg.rl}

    return change, {"remove_columns": ["q"]}
"""


def test_functions_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "prompt_rows.py").write_text(FUNCTIONS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    row = {"q": "2 + 2?", "a": 4}
    plain = rows_of(tmp_path / "plain", [row], type="prompt_rows.plain")
    assert plain.reference(0) == {"prompt": "2 + 2? =", "answer": 4}
    axolotl = rows_of(tmp_path / "axolotl", [row], type="prompt_rows.transform")
    assert axolotl.reference(0) == {"prompt": [QUESTION], "a": 4, "end": "<|im_end|>", "rl": "grpo"}
    assert decode(axolotl.ids(0).tolist()) == ASKED


def test_what_cannot_be_asked(tmp_path: Path) -> None:
    answered = [QUESTION, {"role": "assistant", "content": "4"}]
    rows = [{"prompt": "q"}, {"prompt": answered}, {"prompt": ""}, {"prompt": "q", "images": []}, {"prompt": "q", "a": "\ud800"}, {}]
    assert len(rows_of(tmp_path, rows)) == 1
    assert sorted(left_out(tmp_path)) == [
        "column 'images' has a name that TRL uses itself",
        "column 'prompt' is missing",
        "text with a lone surrogate, which no UTF-8 can hold",
        "the last message is the assistant's, and a prompt ends where it is to answer",
        "the prompt is empty",
    ]

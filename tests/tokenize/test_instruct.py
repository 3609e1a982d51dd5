"""Instruction types: the texts of every named one, mappings of columns and texts, and rows that cannot be used."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from pipeline.options.dataset_types import TYPES, full_name
from tests.tokenize.aims import left_out
from tests.tokenize.rows import full_text, tokenize, trained_text

GOLDEN = json.loads((Path(__file__).parent / "golden_texts.json").read_text(encoding="utf-8"))
"""What Axolotl 0.21's own prompt strategies make of rows: whole text and trained text (of preferences: prompt and answers)."""


def golden_types() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    for kind, items in groupby(GOLDEN["text"], lambda item: item["type"]):
        yield kind, list(items)


@pytest.mark.parametrize(("kind", "items"), golden_types(), ids=lambda value: value if isinstance(value, str) else "")
def test_texts_of_a_type_are_those_it_is_known_by(tmp_path: Path, kind: str, items: list[dict[str, Any]]) -> None:
    table = tokenize(tmp_path, [item["row"] for item in items], type=kind)
    assert [full_text(table, row) for row in range(len(items))] == [item["text"] for item in items]
    assert [trained_text(table, row) for row in range(len(items))] == [item["trained"] for item in items]


def test_every_named_type_is_tested_here_or_has_tests_of_its_own() -> None:
    own_tests = {"chat_template", "messages", "completion", "pretrain", "llama2_chat"}
    assert {full_name(kind, "text") for kind, _ in golden_types()} | own_tests == set(TYPES["text"])


@pytest.mark.parametrize(("kind", "column"), [("completion", "body"), ("pretrain", "body")])
def test_documents_are_trained_whole_and_end(tmp_path: Path, kind: str, column: str) -> None:
    table = tokenize(tmp_path, [{"body": "to be"}, {"body": "or not<|im_end|>"}, {"body": ""}], type=kind, field=column)
    assert (
        [trained_text(table, row) for row in (0, 1)] == ["to be<|im_end|>", "or not<|im_end|>"] == [full_text(table, row) for row in (0, 1)]
    )
    assert left_out(tmp_path) == {"column 'body' is empty": 1}


def test_train_on_inputs_trains_prompts_too(tmp_path: Path) -> None:
    row = {"instruction": "Hi", "output": "Hello"}
    table = tokenize(tmp_path, [row, row | {"output": ""}], type="alpaca_instruct.load_no_prompt", train_on_inputs=True)
    assert trained_text(table, 0) == full_text(table, 0) == "### Instruction:\nHi\n\n### Response:\nHello<|im_end|>"
    assert trained_text(table, 1) == "### Instruction:\nHi\n\n### Response:\n"


def test_answers_of_three_ends_count_one_they_have(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "generation": text} for text in ("b", "b<|im_end|>")]
    table = tokenize(tmp_path, rows, type="metharme")
    assert full_text(table, 0) == full_text(table, 1) == "ab<|im_end|><|im_end|><|im_end|>"


def test_the_style_of_alpaca_chat_is_an_option(tmp_path: Path) -> None:
    table = tokenize(tmp_path, [{"instruction": "a", "input": "b", "output": "c"}], type="alpaca_chat", conversation="phi")
    assert full_text(table, 0).endswith("<|user|>\na<|end|>b<|assistant|>c<|im_end|>")


def test_thoughts_about_an_answer_lead_to_a_better_one_in_every_style(tmp_path: Path) -> None:
    row = {"instruction": "a", "output": "b", "reflection": "c", "corrected": "d"}
    table = tokenize(tmp_path, [row], type="reflection:chat")
    assert trained_text(table, 0) == "\nTHOUGHT: b\nASSISTANT REFLECTION: c\nASSISTANT:d<|im_end|>"


def test_an_empty_answer_can_be_corrected_too(tmp_path: Path) -> None:
    table = tokenize(tmp_path, [{"instruction": "a", "output": "", "reflection": "c", "corrected": "d"}], type="reflection")
    assert trained_text(table, 0) == "### Thought:\n\n\n### Agent Reflection:\nc\n\n### Final Response:\nd<|im_end|>"


@pytest.mark.parametrize(
    ("kind", "rows"),
    [
        (
            "alpaca",
            [
                ({"output": "a"}, "column 'instruction' is missing"),
                ({"instruction": "a", "output": 5}, "column 'output' is not text"),
                ({"instruction": "a", "output": ""}, "the answer is empty"),
                ({"instruction": "a", "input": [], "output": "b"}, "column 'input' is not text"),
            ],
        ),
        ("jeopardy", [({"question": "a", "category": "b", "answer": ""}, "the answer is empty")]),
        (
            "explainchoice",
            [
                ({"question": "a", "choices": "b", "solution": "c"}, "column 'choices' is not a list"),
                ({"question": "a", "choices": [1], "solution": "c"}, "column 'choices' holds something that is no text"),
                ({"question": "a", "choices": ["b"]}, "column 'explanation' is missing"),
            ],
        ),
        (
            "reflection",
            [
                ({"instruction": "a", "output": "b", "reflection": "c", "corrected": ""}, "column 'corrected' is empty"),
                ({"instruction": "a", "output": "b", "corrected": "c"}, "column 'reflection' is missing"),
            ],
        ),
        (
            "creative_acr.load_critique",
            [({"instruction": "a", "answer": "b", "scores": {}, "critiques": {"x": 1}}, "column 'scores' is empty")],
        ),
        (
            "input_output",
            [
                ({"segments": [{"text": "a"}]}, "a segment has no true or false under 'label'"),
                ({"segments": [{"label": True}]}, "a segment has no text under 'text'"),
                ({"segments": []}, "column 'segments' is empty"),
                ({"segments": [{"label": False, "text": "a"}]}, "no trained token"),
            ],
        ),
        ({}, [({"instruction": "a"}, "column 'output' is missing"), ({"instruction": "a", "output": ""}, "column 'output' is empty")]),
        (
            None,
            [
                ({"input_ids": [1, 2], "labels": [1]}, "2 input_ids, 1 labels and 2 numbers in attention_mask"),
                ({"input_ids": [5, 6], "labels": [5, 7]}, "label 7 at position 1 is neither the token there (6) nor -100"),
                ({"input_ids": [5.5], "labels": [5]}, "column 'input_ids' holds something that is no whole number"),
                ({"text": "a"}, "column 'input_ids' is missing"),
            ],
        ),
    ],
)
def test_a_row_that_cannot_be_used_says_why(tmp_path: Path, kind: Any, rows: list[tuple[dict[str, Any], str]]) -> None:
    ready = {"input_ids": [5], "attention_mask": [1], "labels": [5]}
    assert len(tokenize(tmp_path, [ready, *(row for row, _ in rows)], type=kind)) == 1
    assert left_out(tmp_path) == {reason: 1 for _, reason in rows}


MAPPING = {
    "field_system": "sys",
    "field_instruction": "q",
    "field_input": "ctx",
    "field_output": "a",
    "system_prompt": "Be kind.",
    "system_format": "<{system}>",
    "format": "{{Q}} {instruction} ({input}) ",
    "no_input_format": "{{Q}} {instruction} ",
}


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"q": "x", "ctx": "y", "sys": "S"}, "<S>{Q} x (y) "),
        ({"q": "x", "ctx": "", "sys": "S"}, "<S>{Q} x "),
        ({"q": "x", "ctx": None, "sys": ""}, "{Q} x "),
        ({"q": "{ctx}", "ctx": "y"}, "<Be kind.>{Q} {ctx} (y) "),
    ],
)
def test_a_mapping_says_columns_and_texts(tmp_path: Path, row: dict[str, Any], prompt: str) -> None:
    table = tokenize(tmp_path, [row | {"a": "z"}], type=MAPPING)
    assert full_text(table, 0) == f"{prompt}z<|im_end|>" and trained_text(table, 0) == "z<|im_end|>"


def test_an_empty_mapping_has_the_usual_columns(tmp_path: Path) -> None:
    rows = [{"instruction": "a", "input": "b", "output": "c", "system": "S"}, {"instruction": "a", "output": "c"}]
    table = tokenize(tmp_path, rows, type={})
    assert [full_text(table, row) for row in (0, 1)] == ["Sa b c<|im_end|>", "a c<|im_end|>"]


def test_rows_that_are_tokenized_are_taken_as_they_are_without_padding(tmp_path: Path) -> None:
    ready = {"input_ids": [72, 73, 74, 0], "attention_mask": [1, 1, 1, 0], "labels": [-100, 73, 74, -100]}
    for kind in (None, "alpaca"):
        table = tokenize(tmp_path / str(kind), [ready], type=kind)
        assert table.ids(0).tolist() == [72, 73, 74] and table.mask(0).tolist() == [0, 1, 1]

"""chat_template: which turns are trained, and which characters of turns that are trained in part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.options.reading.source import parse
from pipeline.options.recipe import check_source
from stages.tokenize.example import BadRow
from tests.options.configs import GOOD
from tests.tokenize.chats import CALLS, marked
from tests.tokenize.rows import chat, tokenize, trained_text

TALK = "{% for m in messages %}[{{ m.role }}]{{ m.content }}<|im_end|>{% endfor %}"
ROW = chat(("system", "s"), ("human", "q"), ("gpt", "a"), ("tool", "t"))


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({}, "[system]s<|im_end|>[user]q<|im_end|>[assistant]«a<|im_end|>»[tool]t<|im_end|>"),
        ({"roles_to_train": []}, "[system]s<|im_end|>[user]q<|im_end|>[assistant]a<|im_end|>[tool]t<|im_end|>"),
        ({"roles_to_train": ["human", "tool"]}, "[system]s<|im_end|>[user]«q<|im_end|>»[assistant]a<|im_end|>[tool]«t<|im_end|>»"),
        (
            {"roles": {"model": ["gpt"]}, "roles_to_train": ["gpt"]},
            "[system]s<|im_end|>[human]q<|im_end|>[model]«a<|im_end|>»[tool]t<|im_end|>",
        ),
        (
            {"roles": {"model": ["gpt"]}, "roles_to_train": ["model"]},
            "[system]s<|im_end|>[human]q<|im_end|>[model]«a<|im_end|>»[tool]t<|im_end|>",
        ),
    ],
)
def test_roles_to_train(entry: dict[str, Any], expected: str) -> None:
    assert marked(ROW, TALK, **entry) == expected


def test_null_is_the_default() -> None:
    options = check_source(
        parse(GOOD.replace("type: chat_template", "type: chat_template\n    roles_to_train:\n    train_on_eos: null"), "x")
    ).options
    (entry,) = options.datasets
    given = {"roles_to_train": entry.roles_to_train, "train_on_eos": entry.train_on_eos}
    assert marked(ROW, TALK, **given) == marked(ROW, TALK)


@pytest.mark.parametrize(
    ("flags", "trained"),
    [
        ((True, False), "«q<|im_end|>»[assistant]a"),
        ((None, None), "q<|im_end|>[assistant]«a<|im_end|>»"),
        ((1, 0.0), "«q<|im_end|>»[assistant]a"),
    ],
)
def test_a_flag_of_the_message_comes_first(flags: tuple[Any, Any], trained: str) -> None:
    row = {"messages": [{"role": "user", "content": "q", "w": flags[0]}, {"role": "assistant", "content": "a", "w": flags[1]}]}
    assert marked(row, TALK, message_field_training="w").startswith("[user]" + trained)


def detailed(content: str, *spans: tuple[int, int, bool], **more: Any) -> dict[str, Any]:
    detail = [{"begin_offset": begin, "end_offset": end, "train": train} for begin, end, train in spans]
    return {"messages": [{"role": "user", "content": content, "spans": detail or None} | more]}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (detailed("hello world", (0, 4, True), (5, 10, False)), "[user]«hello» world«<|im_end|>»"),
        (detailed("hello world", (6, 10, True)), "[user]hello «world<|im_end|>»"),
        (detailed("hello world", (0, 5, True)), "[user]«hello» world«<|im_end|>»"),
        (detailed("hello world", (0, 6, True), (3, 8, True), (4, 5, False)), "[user]«hello wor»ld«<|im_end|>»"),
        (detailed("hello", (0, 99, True)), "[user]«hello<|im_end|>»"),
        (detailed("hello", (1, 1, True)), "[user]h«e»llo«<|im_end|>»"),
        (detailed("hello", (0, 4, False)), "[user]hello«<|im_end|>»"),
        (detailed("  hello ", (2, 2, True)), "[user]  «h»ello «<|im_end|>»"),
        (detailed("hello"), "[user]hello<|im_end|>"),
        (detailed("hello", (0, 1, True), train=False), "[user]hello<|im_end|>"),
        (detailed("", (0, 1, True)), "[user]«<|im_end|>»"),
    ],
)
def test_spans_of_the_content(row: dict[str, Any], expected: str) -> None:
    told = marked(row, TALK, message_field_training="train", message_field_training_detail="spans")
    assert told == expected


def test_spans_follow_what_the_template_trims() -> None:
    trimming = TALK.replace("m.content", "m.content | trim")
    assert marked(detailed("  hello ", (2, 3, True)), trimming, message_field_training_detail="spans") == "[user]«he»llo«<|im_end|>»"


def test_with_spans_of_the_content_the_reasoning_is_not_trained() -> None:
    row = detailed("hello", (0, 1, True), role="assistant", reasoning_content="r")
    told = marked(row, CALLS, message_field_training_detail="spans")
    assert told == "<|im_start|>assistant\n<think>r</think>«he»llo«<|im_end|>»\n"


@pytest.mark.parametrize(
    ("role", "parts", "expected"),
    [
        ("assistant", [{"text": "a", "train": False}, {"text": " b"}], "a« b<|im_end|>»"),
        ("assistant", [{"text": "a ", "weight": 1}, {"text": "b", "weight": 0}], "«a» b«<|im_end|>»"),
        ("assistant", [{"text": "a", "weight": 0.0}, {"text": " b", "train": False, "weight": 1}], "a b<|im_end|>"),
        ("user", [{"text": "a", "train": True}, {"text": " b"}], "«a» b«<|im_end|>»"),
        ("user", [{"text": "a", "train": False}, {"text": " b"}], "a b<|im_end|>"),
        ("user", [{"text": "a"}, {"text": " b"}], "a b<|im_end|>"),
    ],
)
def test_parts_with_flags(role: str, parts: list[dict[str, Any]], expected: str) -> None:
    assert marked({"messages": [{"role": role, "content": parts}]}, TALK) == f"[{role}]{expected}"


def test_parts_of_reasoning() -> None:
    row = {"messages": [{"role": "assistant", "reasoning_content": [{"text": "x", "train": False}, {"text": "y"}], "content": "a"}]}
    assert marked(row, CALLS) == "<|im_start|>assistant\n<think>x«y»</think>a«<|im_end|>»\n"


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"train": "yes"}, "'train' of a message is neither true nor false"),
        ({"spans": "all"}, "'spans' of a message is no list of spans"),
        ({"spans": [{"begin_offset": 0, "end_offset": 1}]}, "'spans.train' of a message is neither true nor false"),
        ({"spans": [{"begin_offset": 2, "end_offset": 1, "train": True}]}, "a span of 'spans' needs 0 <= begin_offset <= end_offset"),
        ({"spans": [{"begin_offset": 0.5, "end_offset": 1, "train": True}]}, "a span of 'spans' needs 0 <= begin_offset <= end_offset"),
    ],
)
def test_flags_and_spans_that_cannot_be_read(message: dict[str, Any], reason: str) -> None:
    row = {"messages": [{"role": "assistant", "content": "abc"} | message]}
    with pytest.raises(BadRow) as caught:
        marked(row, TALK, message_field_training="train", message_field_training_detail="spans")
    assert str(caught.value).startswith(reason)


def test_spans_of_a_content_that_the_template_changes() -> None:
    with pytest.raises(BadRow, match="changes a turn of which only parts are trained"):
        marked(detailed("hello", (0, 1, True)), TALK.replace("m.content", "m.content | upper"), message_field_training_detail="spans")


def test_spans_through_the_stage(tmp_path: Path) -> None:
    row = detailed("Grüße 🙂!", (3, 3, True), (6, 6, True))
    assert trained_text(tokenize(tmp_path, [row], message_field_training_detail="spans"), 0) == "ß🙂<|im_end|>"

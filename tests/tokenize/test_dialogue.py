"""Conversations of types with fixed texts around their turns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.tokenize.aims import left_out, tokenize_for
from tests.tokenize.rows import full_text, tokenize, trained_text


def said(*turns: tuple[str, str]) -> dict[str, Any]:
    return {"conversations": [{"from": speaker, "value": text} for speaker, text in turns]}


def test_llama_2_chat_trains_answers_and_their_ends(tmp_path: Path) -> None:
    turns = (("system", "Be kind."), ("human", " Hi "), ("gpt", "Hello [/INST] "), ("human", "Bye"), ("gpt", "See you"), ("human", "?"))
    table = tokenize(tmp_path, [said(*turns)], type="llama2_chat")
    assert full_text(table, 0) == (
        "[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nHi[/INST] Hello [/INST] </s><s>[INST] Bye [/INST] See you </s><s>"
    )
    assert trained_text(table, 0) == " Hello [/INST] </s> See you </s>"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (said(("human", "a"), ("human", "b")), "turn 1 is from 'human': human and gpt must take turns"),
        (said(("human", "a")), "no question with an answer"),
        (said(("system", "a")), "no question with an answer"),
        (said(("human", "a"), ("gpt", " ")), "turn 1 is empty"),
        ({"conversations": ["a"]}, "a turn has no text under 'from'"),
        ({"text": "a"}, "column 'conversations' is missing"),
    ],
)
def test_llama_2_chat_leaves_out_what_is_no_conversation(tmp_path: Path, row: dict[str, Any], reason: str) -> None:
    table = tokenize(tmp_path, [said(("gpt", "skipped"), ("human", "a"), ("gpt", "b")), row], type="llama2_chat")
    assert len(table) == 1 and "skipped" not in full_text(table, 0) and "respectful and honest" in full_text(table, 0)
    assert left_out(tmp_path) == {reason: 1}


def test_pygmalion_needs_roles_that_it_has(tmp_path: Path) -> None:
    good = {"conversations": [{"role": "bot", "value": "a<|im_end|>"}]}
    table = tokenize(tmp_path, [good, {"conversations": [{"role": "gpt", "value": "a"}]}], type="pygmalion")
    assert full_text(table, 0) == "<|model|> a<|im_end|>" and trained_text(table, 0) == " a<|im_end|>"
    assert left_out(tmp_path) == {"the role 'gpt' is none of system, human, bot": 1}


def test_messages_are_chatml_with_weights(tmp_path: Path) -> None:
    rows = [
        {"messages": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        {"messages": [{"role": "user", "content": "q", "train": True}, {"role": "assistant", "content": "a", "train": False}]},
    ]
    table = tokenize(tmp_path, rows, type="messages")
    assert full_text(table, 0) == full_text(table, 1) == "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n"
    assert [trained_text(table, row) for row in (0, 1)] == ["a<|im_end|>", "q<|im_end|>"]


def test_messages_hold_calls_and_results(tmp_path: Path) -> None:
    call = {"type": "tool_call", "value": {"name": "add", "arguments": {"x": 1}, "id": "7"}}
    parts = [{"type": "text", "value": "so", "has_newline": True}, {"type": "text", "value": "hm", "weight": 0}, call]
    result = [{"type": "tool_response", "value": {"name": "add", "content": "2"}}]
    row = {"messages": [{"role": "assistant", "content": parts}, {"role": "tool", "content": result}]}
    table = tokenize_for(tmp_path, {}, [row], type="messages", chat_template="llama3")
    called = '<tool_call>\n{"name": "add", "arguments": {"x": 1}, "id": "7"}\n</tool_call>\n'
    assert full_text(table, 0) == (
        f"<|begin_of_text|><|start_header_id|>assistant<|end_header_id|>\n\nso\nhm{called}<|eot_id|>"
        '<|start_header_id|>ipython<|end_header_id|>\n\n<tool_response>\n{"name": "add", "content": "2"}\n</tool_response>\n<|eot_id|>'
    )
    assert trained_text(table, 0) == f"so\n{called}<|eot_id|>"


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"role": "narrator", "content": "a"}, "the role 'narrator' is none of system, user, assistant, tool, ipython, human, gpt"),
        ({"role": "assistant"}, "a message has no content"),
        ("a", "a message is not an object"),
        ({"role": "assistant", "content": [{"type": "image", "value": "a"}]}, "a part of a content is neither text nor a tool_call"),
    ],
)
def test_messages_that_cannot_be_used_say_why(tmp_path: Path, message: Any, reason: str) -> None:
    tokenize(tmp_path, [{"messages": [{"role": "assistant", "content": "a"}]}, {"messages": [message]}], type="messages")
    (found,) = left_out(tmp_path)
    assert found.startswith(reason)

"""The built-in chat templates: what they write, letter for letter, and what they refuse.

``chat_template_renders.json`` was made with the templates that the formats come from, not with those of this repository: per template
and conversation the text, its SHA-256 where it is long, or null where the template refuses the conversation.
"""

from __future__ import annotations

import hashlib
import json
from datetime import date
from pathlib import Path
from typing import Any, get_args

import pytest
from jinja2 import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

from pipeline.chat_templates import NAMES, built_in
from pipeline.options.tokenizer import TemplateName

GOLDEN = json.loads((Path(__file__).parent / "chat_template_renders.json").read_text(encoding="utf-8"))
CALL = {"id": "abcdefgh0", "type": "function", "function": {"name": "weather", "arguments": {"city": "Rome"}}}
TOOL = {"type": "function", "function": {"name": "weather", "description": "", "parameters": {"type": "object", "properties": {}}}}


def render(name: str, messages: list[dict[str, Any]], **variables: Any) -> str:
    found: Any = render_jinja_template([messages], chat_template=built_in(name), **(GOLDEN["variables"] | variables))
    return str(found[0][0])


def attempt(name: str, conversation: dict[str, Any]) -> str | None:
    try:
        return render(name, **conversation)
    except (TemplateError, TypeError):
        return None


@pytest.mark.parametrize("name", NAMES)
def test_the_text_is_that_of_the_format(name: str) -> None:
    for title, expected in GOLDEN["rendered"][name].items():
        text = attempt(name, GOLDEN["conversations"][title])
        if text is not None and str(expected).startswith("sha256:"):
            text = f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
        assert text == expected, title


def test_every_name_is_an_option_and_has_renders() -> None:
    assert set(get_args(TemplateName)) == {*NAMES, "tokenizer_default", "jinja"}
    assert GOLDEN["rendered"].keys() == set(NAMES)
    assert all("include '" not in built_in(name) for name in NAMES)


def test_the_date_is_asked_for_only_where_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """A template that looked at the clock without need could not be used for training at all."""
    system, question = {"role": "system", "content": "S"}, {"role": "user", "content": "Q"}
    asked = []

    class Clock:
        @staticmethod
        def now() -> date:
            asked.append(1)
            return date(2024, 5, 6)

    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Clock)
    for name in NAMES:
        render(name, [question] if name == "gemma" else [system, question])
    assert not asked
    assert "The current date is 2024-05-06." in render("mistral_v7_tekken", [question])


@pytest.mark.parametrize("name", ["deepseek_v3", "llama3_2_vision", "llama4", "mistral_v2v3", "mistral_v3_tekken"])
@pytest.mark.parametrize("calls", [[], None])
def test_an_empty_list_of_tool_calls_is_none(name: str, calls: list[Any] | None) -> None:
    """Tables have the column in every row. The turn must not lose its text for it."""
    question = {"role": "user", "content": "Q"}
    plain = render(name, [question, {"role": "assistant", "content": "A"}])
    assert render(name, [question, {"role": "assistant", "content": "A", "tool_calls": calls}]) == plain


@pytest.mark.parametrize("content", ["", None])
def test_a_tool_call_needs_no_text_beside_it_and_its_arguments_may_be_a_mapping(content: str | None) -> None:
    text = render("deepseek_v3", [{"role": "user", "content": "Q"}, {"role": "assistant", "content": content, "tool_calls": [CALL]}])
    assert 'weather\n```json\n{"city": "Rome"}\n```' in text
    as_text = CALL | {"function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
    assert text == render("deepseek_v3", [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "", "tool_calls": [as_text]}])


def test_documents_need_no_tools() -> None:
    messages = [{"role": "user", "content": "Q"}]
    with_documents = render("command_a_tool_use", messages, documents=[{"text": "x"}])
    assert with_documents == render("command_a_rag", messages, documents=[{"text": "x"}], tools=[TOOL])

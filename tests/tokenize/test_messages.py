"""chat_template: from columns to messages. What a row may look like, and the reason when it cannot be used."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.errors import RegrowError
from stages.tokenize.example import BadRow
from tests.tokenize.chats import CALLS, chat_format, marked
from tests.tokenize.rows import chat

TALK = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
TOOLS = TALK + "{% for tool in tools or [] %}<{{ tool.function.name }} {{ tool.function.parameters | tojson }}>{% endfor %}"


def test_messages_may_be_json_text() -> None:
    row = chat(("user", "q"), ("assistant", "a"))
    assert marked({"messages": json.dumps(row["messages"])}, TALK) == marked(row, TALK) == "[user]q[assistant]«a»"


def test_any_property_may_have_another_key() -> None:
    message = {"von": "gpt", "text": "a", "wer": "x"}
    template = "{% for m in messages %}[{{ m.role }}{{ m.name }}]{{ m.content }}{% endfor %}"
    mapping = {"role": "von", "content": "text", "name": "wer"}
    assert marked({"messages": [message]}, template, message_property_mappings=mapping, train_on_eos="none") == "[assistantx]«a»"


def test_roles_that_no_map_knows_are_passed_on() -> None:
    assert marked(chat(("critic", "c"), ("gpt", "a")), TALK, roles_to_train=["critic"]) == "[critic]«c»[assistant]a"


def test_a_system_column_leads_unless_a_system_turn_does() -> None:
    row = chat(("user", "q"), ("assistant", "a")) | {"system": "s"}
    assert marked(row, TALK) == "[system]s[user]q[assistant]«a»"
    row["messages"].insert(0, {"role": "system", "content": "own"})
    assert marked(row, TALK) == "[system]own[user]q[assistant]«a»"


def test_drop_system_message_drops_the_first_turn_alone() -> None:
    turns = [("system", "s"), ("user", "q"), ("system", "t"), ("assistant", "a")]
    assert marked(chat(*turns), TALK, drop_system_message=True) == "[user]q[system]t[assistant]«a»"
    assert marked(chat(*turns[1:]) | {"system": "s"}, TALK, drop_system_message=True) == "[user]q[system]t[assistant]«a»"


def test_content_may_be_a_list_of_parts() -> None:
    parts = [{"type": "text", "text": "one "}, {"content": "two "}, {"value": "three "}, "four"]
    assert marked({"messages": [{"role": "assistant", "content": parts}]}, TALK) == "[assistant]«one two three four»"


@pytest.mark.parametrize("as_text", [False, True])
def test_tools_of_any_column(as_text: bool) -> None:
    parameters = {"type": "object", "properties": {"c": {"type": "string"}}}
    tool: dict[str, Any] = {"function": {"name": "get", "parameters": json.dumps(parameters) if as_text else parameters, "strict": None}}
    row = chat(("assistant", "a")) | {"werkzeug": json.dumps([tool]) if as_text else [tool]}
    assert marked(row, TOOLS, field_tools="werkzeug") == f"[assistant]«a»<get {json.dumps(parameters)}>"
    assert marked(row, TOOLS) == "[assistant]«a»", "its default is the column tools"


def test_arguments_of_calls_may_be_json_text() -> None:
    call = {"function": {"name": "get", "arguments": '{"c": "é", "d": null}'}}
    row = {"messages": [{"role": "assistant", "content": None, "tool_calls": [call]}]}
    assert '<call>get({"c": "é", "d": null})</call>' in marked(row, CALLS)


def test_nulls_of_other_rows_are_no_values() -> None:
    call = {"function": {"name": "get", "arguments": {"c": 1, "other": None}}, "type": None}
    row = {
        "messages": [{"role": "assistant", "content": "x", "tool_calls": [call], "reasoning_content": None}],
        "tools": None,
        "system": None,
    }
    assert marked(row, CALLS) == '<|im_start|>assistant\n«x<call>get({"c": 1})</call><|im_end|>»\n'


def test_reasoning_of_any_key_under_any_name() -> None:
    template = "{% for m in messages %}[{{ m.role }}]({{ m.thoughts }}){{ m.content }}{% endfor %}"
    row = {"messages": [{"role": "assistant", "why": "r", "content": "a"}]}
    assert marked(row, template, field_thinking="why", template_thinking_key="thoughts") == "[assistant](«r)a»"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("<think>\nr\n</think>\n\na", "<think>r</think>a"),
        ("  <reasoning>r</reasoning> a", "<think>r</think>a"),
        ("<|begin_of_thought|>r<|end_of_thought|><|begin_of_solution|> a <|end_of_solution|>", "<think>r</think>a"),
        ("<think>r</think><|begin_of_solution|>a<|end_of_solution|> b", "<think>r</think><|begin_of_solution|>a<|end_of_solution|> b"),
        ("no <think>r</think> a", "no <think>r</think> a"),
        ("<think>open", "<think>open"),
    ],
)
def test_split_thinking(content: str, expected: str) -> None:
    told = marked(chat(("user", "<think>u</think>"), ("assistant", content)), CALLS, split_thinking=True)
    assert told == f"<|im_start|>user\n<think>u</think><|im_end|>\n<|im_start|>assistant\n«{expected}<|im_end|>»\n"


def test_variables_for_every_rendering() -> None:
    told = marked(chat(("assistant", "a")), "{{ mood }}" + TALK, top={"chat_template_kwargs": {"mood": "calm "}})
    assert told == "calm [assistant]«a»"


def test_rows_end_with_a_generation_prompt_where_a_variable_asks_for_it() -> None:
    template = TALK + "{% if add_generation_prompt %}[assistant]{% endif %}"
    row = chat(("user", "q"), ("assistant", "a"))
    assert marked(row, template) == "[user]q[assistant]«a»"
    assert marked(row, template, top={"chat_template_kwargs": {"add_generation_prompt": True}}) == "[user]q[assistant]«a»[assistant]"


@pytest.mark.parametrize(
    ("entry", "own", "begins"),
    [
        ({"chat_template": "llama3"}, TALK, "<s><|start_header_id|>assistant"),
        ({"chat_template_jinja": "!" + TALK}, TALK, "![assistant]"),
        ({"chat_template": "jinja", "chat_template_jinja": "!" + TALK}, TALK, "![assistant]"),
        ({"chat_template": "tokenizer_default"}, TALK, "[assistant]"),
        ({"chat_template": "tokenizer_default_fallback_chatml"}, TALK, "[assistant]"),
        ({"chat_template": "tokenizer_default_fallback_chatml"}, None, "<|im_start|>assistant"),
    ],
)
def test_a_template_of_its_own(entry: dict[str, Any], own: str | None, begins: str) -> None:
    assert chat_format(own, **entry)(chat(("assistant", "a"))).pieces[0].text.startswith(begins)


def test_no_template_at_all() -> None:
    with pytest.raises(RegrowError, match="the tokenizer has none"):
        chat_format(None)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({}, "column 'messages' holds no messages"),
        ({"messages": []}, "column 'messages' holds no messages"),
        ({"messages": "[{"}, "column 'messages' is text that is not JSON"),
        ({"messages": ["hi"]}, "a message is not an object"),
        ({"messages": [{"content": "x"}]}, "a message has no role: there is no 'role'"),
        ({"messages": [{"role": None, "content": "x"}]}, "a message has no role: 'role' is null"),
        ({"messages": [{"role": ["a"], "content": "x"}]}, "a message has no role: 'role' is not text"),
        (
            {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": None}]},
            "a message has no content: 'content' is null",
        ),
        ({"messages": [{"role": "user"}]}, "a message has no content: there is no 'content'"),
        ({"messages": [{"role": "user", "content": 7}]}, "a message has no content: 'content' is not text"),
        ({"messages": [{"role": "user", "content": [7]}]}, "a part of a message's content is neither text nor an object"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "a part of a message's content is no text (its type: 'image')"),
        ({"messages": [{"role": "assistant", "content": "", "tool_calls": "x"}]}, "tool_calls is text that is not JSON"),
        ({"messages": [{"role": "assistant", "content": "", "tool_calls": {}}]}, "tool_calls of a message is no list"),
        ({"messages": [{"role": "assistant", "content": "a", "reasoning_content": 1}]}, "a message has no reasoning that is text"),
        ({"messages": [{"role": "assistant", "content": "a"}], "tools": "{"}, "column 'tools' is text that is not JSON"),
        ({"messages": [{"role": "assistant", "content": "a"}], "tools": 5}, "column 'tools' is no list of tools"),
        (
            {"messages": [{"role": "assistant", "content": "a", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]},
            "arguments of tool 'f' is text that is not JSON",
        ),
    ],
)
def test_rows_that_cannot_be_used(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadRow) as caught:
        marked(row, CALLS)
    assert str(caught.value) == reason


@pytest.mark.parametrize("content", ["", None])
def test_calls_that_a_template_does_not_print(content: str | None) -> None:
    row = {"messages": [{"role": "assistant", "content": content, "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}]}
    silent = TALK + "{# a template that knows the word tool_calls #}"
    for template in (TALK, silent):
        with pytest.raises(BadRow, match="tool calls alone"):
            marked(row, template)


def test_null_is_told_to_templates_that_ask_for_it() -> None:
    said = "{% if m.content is none %}(calls){{ m.tool_calls | length }}{% else %}{{ m.content }}{% endif %}"
    row = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": None, "tool_calls": [{"function": {}}]}]}
    assert marked(row, "{% for m in messages %}" + said + "{% endfor %}") == "q«(calls)1»"

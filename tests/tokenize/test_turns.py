"""chat_template: a trained turn is all that it says: content, reasoning and tool calls with the template's text between them."""

from __future__ import annotations

import time
from typing import Any

import pytest

from pipeline.chat_templates import built_in
from stages.tokenize.example import BadRow
from tests.tokenize.chats import CALLS, chat_format, marked
from tests.tokenize.rows import chat

QUESTION = {"role": "user", "content": "q"}
RESULT = {"role": "tool", "name": "f", "tool_call_id": "abcdefghi", "content": "42"}
ANSWER = {"role": "assistant", "content": "a"}


def calling(content: str | None = "", *arguments: str, **more: Any) -> dict[str, Any]:
    calls = [{"id": "abcdefghi", "type": "function", "function": {"name": "f", "arguments": {"x": text}}} for text in arguments or ("y",)]
    return {"role": "assistant", "content": content, "tool_calls": calls} | more


def told(*messages: dict[str, Any], template: str = CALLS, **entry: Any) -> str:
    """The rendered conversation without chatml's headers."""
    return marked({"messages": list(messages)}, template, **entry).replace("<|im_start|>", "").replace("<|im_end|>", "|").replace("\n", " ")


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([QUESTION, calling()], 'user q| assistant «<call>f({"x": "y"})</call>|» '),
        ([QUESTION, calling("c", "1", "2")], 'user q| assistant «c<call>f({"x": "1"})</call><call>f({"x": "2"})</call>|» '),
        ([calling(None, "1"), RESULT, ANSWER], 'assistant «<call>f({"x": "1"})</call>|» tool 42| assistant «a|» '),
        (
            [calling("c", "1"), calling("", "2"), ANSWER],
            'assistant «c<call>f({"x": "1"})</call>|» assistant «<call>f({"x": "2"})</call>|» assistant «a|» ',
        ),
        (
            [calling("", "|"), RESULT, calling("", "|")],
            'assistant «<call>f({"x": "|"})</call>|» tool 42| assistant «<call>f({"x": "|"})</call>|» ',
        ),
        ([QUESTION, calling("a", "a"), ANSWER, ANSWER], 'user q| assistant «a<call>f({"x": "a"})</call>|» assistant «a|» assistant «a|» '),
        ([ANSWER | {"reasoning_content": "r"}, QUESTION], "assistant «<think>r</think>a|» user q| "),
        (
            [ANSWER | {"reasoning_content": "a"}, calling("", reasoning_content="a")],
            'assistant «<think>a</think>a|» assistant «<think>a</think><call>f({"x": "y"})</call>|» ',
        ),
        ([ANSWER | {"reasoning_content": "", "tool_calls": []}], "assistant «a|» "),
    ],
)
def test_all_that_a_turn_says(messages: list[dict[str, Any]], expected: str) -> None:
    assert told(*messages) == expected


def test_a_turn_that_is_not_trained_may_call_too() -> None:
    expected = 'assistant <call>f({"x": "y"})</call>«|» tool «42|» '
    assert told(calling(), RESULT, roles_to_train=["tool"], train_on_eos="all") == expected


def test_text_that_a_plain_turn_has_as_well_is_not_trained() -> None:
    thinking = {"messages": [QUESTION, ANSWER | {"reasoning_content": "r"}, QUESTION, ANSWER | {"reasoning_content": "s\nt"}]}
    (earlier, last) = marked(thinking, built_in("qwen3")).split("user\nq<|im_end|>\n")[1:]
    assert earlier == "<|im_start|>assistant\n«a<|im_end|>»\n<|im_start|>"
    assert last == "<|im_start|>assistant\n<think>\n«s\nt\n</think>\n\na<|im_end|>»\n"


@pytest.mark.parametrize("name", ["mistral_v2v3", "mistral_v3_tekken", "gemma4", "command_a_tool_use"])
def test_templates_that_need_the_calls_of_a_turn(name: str) -> None:
    """Without the calls they refuse the result, or print it elsewhere."""
    row = {"messages": [QUESTION, calling(), RESULT, ANSWER]}
    calls, answer = [part.split("»")[0].removesuffix("<|im_end|>") for part in marked(row, built_in(name)).split("«")[1:]]
    begins = {"gemma4": "<|tool_call>call:f", "command_a_tool_use": "<|START_THINKING|>"}.get(name, "[TOOL_CALLS]")
    ends = {"gemma4": "<tool_call|><|tool_response>", "command_a_tool_use": "<|END_ACTION|>"}.get(name, "]")
    assert calls.startswith(begins) and calls.endswith(ends) and "42" not in calls
    assert answer == "a"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("m.content | upper", "«YES<|im_end|>»"),
        ("m.content | tojson", '"«yes»"«<|im_end|>»'),
        ("m.content | replace('e', '3')", "«y3s<|im_end|>»"),
        ("m.content | replace('yes', 'no')", "«no<|im_end|>»"),
        ("m.content[:1] + (m.content[1:] | upper)", "«yES<|im_end|>»"),
        ("(m.content[:2] | upper) + m.content[2:]", "«YEs<|im_end|>»"),
        ("'%s' % m.content", "«yes<|im_end|>»"),
        ("'<{}>'.format(m.content)", "<«yes»>«<|im_end|>»"),
        ("m.content | title | trim", "«Yes<|im_end|>»"),
        ("m.content.split('e') | join('e')", "«yes<|im_end|>»"),
        ("m.content.rsplit('e', 1)[0] ~ 'e' ~ m.content.partition('e')[2]", "«yes<|im_end|>»"),
        ("[m.content, '.'] | join", "«yes».«<|im_end|>»"),
        ("m.content ~ m.content", "«yesyes<|im_end|>»"),
    ],
)
def test_contents_that_the_template_changes(change: str, expected: str) -> None:
    template = "{% for m in messages %}[{{ m.role }}]{{ " + change + " }}<|im_end|>{% endfor %}"
    row = chat(("user", "yes"), ("assistant", "yes"), ("assistant", "yes"))
    plain = expected.replace("«", "").replace("»", "")
    assert marked(row, template) == f"[user]{plain}[assistant]{expected}[assistant]{expected}"


def test_only_what_the_slower_way_found_is_called_slow() -> None:
    template = "{% for m in messages %}[{{ m.role }}]{{ m.content | upper }}<|im_end|>{% endfor %}"
    row = chat(("user", "yes"), ("assistant", "yes"), ("assistant", "no"))
    assert chat_format(template)(row).slow
    assert not chat_format(template.replace("| upper", "| trim"))(row).slow
    assert not chat_format(CALLS)({"messages": [QUESTION, calling("", "1"), RESULT, calling("", "1")]}).slow


@pytest.mark.parametrize("change", ["m.content | upper | list | sort | join", "m.content | list | join('-')", "m.content | length"])
def test_a_turn_whose_place_cannot_be_told(change: str) -> None:
    with pytest.raises(BadRow, match="its place in the text cannot be told"):
        marked(chat(("user", "who?"), ("assistant", "me")), "{% for m in messages %}{{ " + change + " }}<|im_end|>{% endfor %}")


def test_a_turn_that_is_left_out_or_printed_twice() -> None:
    twice = "{{ messages[0].content }}|{% for m in messages if m.role != 'tool' %}[{{ m.content }}]{% endfor %}"
    row = chat(("system", "s"), ("tool", "t"), ("assistant", "a"))
    assert marked(row, twice, roles_to_train=["system", "tool"]) == "«s»|[«s»][a]"


def test_turns_in_another_order() -> None:
    backwards = "{% for m in messages | reverse %}[{{ m.role }}]{{ m.content }}<|im_end|>{% endfor %}"
    row = chat(("user", "q"), ("assistant", "a"), ("user", "r"), ("assistant", "b"))
    assert marked(row, backwards) == "[assistant]«b<|im_end|>»[user]r<|im_end|>[assistant]«a<|im_end|>»[user]q<|im_end|>"


@pytest.mark.parametrize("name", ["chatml", "qwen3", "llama3"])
def test_time_grows_with_the_length_of_a_conversation(name: str) -> None:
    """Ten times the turns may cost twenty times as much and no more; a rendering per turn would cost a hundred times."""
    form = chat_format(built_in(name))
    turns = [QUESTION, ANSWER | {"reasoning_content": "r " * 50}] * 250
    short, long = [min(_seconds(form, {"messages": turns[:count]}) for _ in range(3)) for count in (50, 500)]
    assert long < 20 * short


def _seconds(form: Any, row: dict[str, Any]) -> float:
    begin = time.thread_time()
    form(row)
    return time.thread_time() - begin

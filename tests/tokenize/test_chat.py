"""chat_template: exactly the trained turns' contents and their terminators are trained."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.tiny import CHATML
from tests.tokenize.rows import chat, full_text, tokenize, trained_text

TRIMMED = (
    "{{ bos_token }}{% for m in messages %}{% set body = m.content | trim %}[{{ m.role }}]\n{{ body ~ '\n' }}{{ eos_token }}{% endfor %}"
)
MACRO = (
    "{% macro turn(m) %}<{{ m.role }}>{{ m.content.strip() }}{% endmacro %}"
    "{% for m in messages %}{{ turn(m) + eos_token + '\n' }}{% endfor %}"
)
MARKED = "{% for m in messages %}{% generation %}{{ m.content }}{{ eos_token }}{% endgeneration %}{% endfor %}"
THINKING = (
    "{% for m in messages %}{% set c = m.content %}{% if '</think>' in c %}{% set c = c.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ c }}<|im_end|>{% endfor %}"
)


def test_trains_the_answers_and_their_terminators(tmp_path: Path) -> None:
    table = tokenize(tmp_path, [chat(("system", "s"), ("user", "one"), ("assistant", "two"), ("user", "two"), ("assistant", " three\n"))])
    assert trained_text(table, 0) == "two<|im_end|> three\n<|im_end|>"
    assert full_text(table, 0).startswith("<|im_start|>system\ns<|im_end|>\n<|im_start|>user\none<|im_end|>")


@pytest.mark.parametrize("template", [CHATML, TRIMMED, MACRO, MARKED])
def test_finds_turns_that_look_like_anything(tmp_path: Path, template: str) -> None:
    answers = ["[1, 2]", "[[dummy_message]]", "assistant", "é漢🙂", "}}{{ m.role }}", "user\nsame"]
    rows = [chat(("user", answer), ("assistant", answer), ("user", "x" + answer), ("assistant", answer)) for answer in answers]
    table = tokenize(tmp_path, rows, chat_template=template)
    for row, answer in enumerate(answers):
        assert trained_text(table, row).replace("\n<|im_end|>", "<|im_end|>") in (f"{answer}<|im_end|>" * 2,)


def test_an_empty_answer_trains_its_terminator_alone(tmp_path: Path) -> None:
    assert trained_text(tokenize(tmp_path, [chat(("user", "q"), ("assistant", ""))]), 0) == "<|im_end|>"


def test_text_that_the_template_cuts_away_is_not_trained(tmp_path: Path) -> None:
    row = chat(("user", "q"), ("assistant", "<think>hm</think>\nanswer"))
    assert trained_text(tokenize(tmp_path, [row], chat_template=THINKING), 0) == "answer<|im_end|>"


@pytest.mark.parametrize(
    ("train_on_eos", "expected"),
    [("turn", "a<|im_end|>b<|im_end|>"), ("last", "ab<|im_end|>"), ("none", "ab"), ("all", "<|im_end|>a<|im_end|><|im_end|>b<|im_end|>")],
)
def test_train_on_eos(tmp_path: Path, train_on_eos: str, expected: str) -> None:
    row = chat(("user", "q"), ("assistant", "a"), ("user", "r"), ("assistant", "b"))
    assert trained_text(tokenize(tmp_path, [row], train_on_eos=train_on_eos), 0) == expected


def test_roles_and_mappings(tmp_path: Path) -> None:
    row = {"turns": [{"from": "human", "value": "q"}, {"from": "bot", "value": "a"}]}
    options = {"field_messages": "turns", "message_property_mappings": {"role": "from", "content": "value"}}
    table = tokenize(tmp_path, [row], roles={"user": ["human"], "assistant": ["bot"]}, **options)
    assert trained_text(table, 0) == "a<|im_end|>"
    assert "<|im_start|>assistant\na" in full_text(table, 0)


def test_roles_to_train_and_train_on_inputs(tmp_path: Path) -> None:
    row = chat(("user", "q"), ("assistant", "a"))
    assert trained_text(tokenize(tmp_path / "1", [row], roles_to_train=["user"]), 0) == "q<|im_end|>"
    assert trained_text(tokenize(tmp_path / "2", [row], train_on_inputs=True), 0) == "q<|im_end|>a<|im_end|>"


WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).filter(lambda text: "<|" not in text)
TURNS = st.tuples(st.sampled_from(["system", "user", "assistant"]), WORDS)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(st.lists(st.lists(TURNS, min_size=1, max_size=6), min_size=1, max_size=8))
def test_decoding_the_trained_tokens_gives_the_trained_turns(
    tmp_path_factory: pytest.TempPathFactory, conversations: list[list[tuple[str, str]]]
) -> None:
    conversations = [[*turns, ("assistant", "end")] for turns in conversations]
    table = tokenize(tmp_path_factory.mktemp("chat"), [chat(*turns) for turns in conversations])
    for row, turns in enumerate(conversations):
        assert trained_text(table, row) == "".join(content + "<|im_end|>" for role, content in turns if role == "assistant")

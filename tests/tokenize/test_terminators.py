"""chat_template: tokens that end a turn, found wherever the template puts them and trained as the options say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import RegrowError
from tests.tiny import CHATML, save_tokenizer
from tests.tokenize.chats import chat_format, mark, marked
from tests.tokenize.rows import chat

TWO = "{% for m in messages %}[{{ m.role }}]{{ m.content }}<|im_end|>{% if m.role == 'assistant' %}<|endoftext|>{% endif %}\n{% endfor %}"
TURNS = chat(("user", "q"), ("assistant", "a"), ("user", "r"), ("assistant", "b"), ("user", "s"))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(folder)
    return folder


def trained(tokenizer: Path, template: str = TWO, row: dict[str, Any] = TURNS, top: dict[str, Any] | None = None, **entry: Any) -> str:
    """The trained stretches, one after the other."""
    return "".join(part.split("»")[0] + " " for part in mark(chat_format(template, tokenizer, top, **entry)(row)).split("«")[1:]).rstrip()


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({}, "a<|im_end|><|endoftext|> b<|im_end|><|endoftext|>"),
        ({"train_on_eot": "none"}, "a<|im_end|> b<|im_end|>"),
        ({"train_on_eos": "none"}, "a b"),
        ({"train_on_eos": "none", "train_on_eot": "turn"}, "a <|endoftext|> b <|endoftext|>"),
        ({"train_on_eos": "last", "train_on_eot": "turn"}, "a <|endoftext|> b<|im_end|><|endoftext|>"),
        ({"train_on_eos": "turn", "train_on_eot": "last"}, "a<|im_end|> b<|im_end|><|endoftext|>"),
        ({"train_on_eos": "all", "train_on_eot": "none"}, "<|im_end|> a<|im_end|> <|im_end|> b<|im_end|> <|im_end|>"),
    ],
)
def test_two_tokens_with_a_policy_each(tokenizer: Path, entry: dict[str, Any], expected: str) -> None:
    assert trained(tokenizer, top={"eot_tokens": ["<|endoftext|>"]}, **entry) == expected


def test_the_first_of_several_ends_a_turn(tokenizer: Path) -> None:
    template = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ '<|im_start|>' if m.content == 'a' else '' }}<|endoftext|>{% endfor %}"
    )
    assert trained(tokenizer, template, top={"eot_tokens": ["<|endoftext|>", "<|im_start|>"]}) == "a<|im_start|> b<|endoftext|>"


def test_a_policy_for_eot_alone_is_one_for_eos(tokenizer: Path) -> None:
    assert trained(tokenizer, CHATML, train_on_eot="last") == "a b<|im_end|>"


@pytest.mark.parametrize("eot_tokens", [["<|im_end|>", "<|endoftext|>"], ["<|im_end|>"], None])
def test_one_token_with_two_policies(tokenizer: Path, eot_tokens: list[str] | None) -> None:
    with pytest.raises(RegrowError, match="train_on_eos is last and train_on_eot is turn"):
        chat_format(TWO, tokenizer, {"eot_tokens": eot_tokens}, train_on_eos="last", train_on_eot="turn")


def test_last_is_the_last_trained_turn_that_has_one(tokenizer: Path) -> None:
    template = "{% for m in messages %}{{ m.content }}{{ eos_token if m.content != 'b' }}{% endfor %}"
    assert trained(tokenizer, template, train_on_eos="last") == "a<|im_end|> b"


def test_far_behind_the_content(tokenizer: Path) -> None:
    template = "{% for m in messages %}{{ m.content }}\n\n-- said by {{ m.role }}, and that was it --\n<|im_end|>{% endfor %}"
    assert trained(tokenizer, template) == "a <|im_end|> b <|im_end|>"


def test_not_that_of_a_later_turn(tokenizer: Path) -> None:
    template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ eos_token if m.role == 'user' }}{% endfor %}"
    assert trained(tokenizer, template) == "a b"
    assert trained(tokenizer, template, train_on_eos="all") == "<|im_end|> a <|im_end|> b <|im_end|>"


@pytest.mark.parametrize("change", ["{{ m.content }}", "{{ m.content | replace('r', 'R') }}", "{{ m.content | upper | lower }}"])
def test_not_that_inside_of_a_content(tokenizer: Path, change: str) -> None:
    template = "{% for m in messages %}[{{ m.role }}]" + change + "{% endfor %}"
    row = chat(("assistant", "a<|im_end|>"), ("user", "r<|im_end|>"), ("assistant", "b"))
    assert trained(tokenizer, template, row) == "a<|im_end|> b"


def test_an_empty_turn_has_one_too() -> None:
    row = chat(("user", "q"), ("assistant", ""), ("user", ""), ("assistant", " "))
    assert marked(row, "{% for m in messages %}[{{ m.role }}]{{ m.content }}<|im_end|>{% endfor %}") == (
        "[user]q<|im_end|>[assistant]«<|im_end|>»[user]<|im_end|>[assistant]« <|im_end|>»"
    )
    silent = "{% for m in messages %}[{{ m.role }}]{% if m.content %}{{ '\n' + m.content | trim }}{% endif %}<|im_end|>{% endfor %}"
    assert marked(row, silent) == "[user]\nq<|im_end|>[assistant]«<|im_end|>»[user]<|im_end|>[assistant]\n«<|im_end|>»"


def test_one_of_several_tokens_is_an_error(tokenizer: Path) -> None:
    with pytest.raises(RegrowError, match=r"'<\|eot\|>' is 7 tokens .*\n.*added_tokens_overrides"):
        chat_format(CHATML + "<|eot|>", tokenizer, {"eot_tokens": ["<|eot|>"]})


@pytest.mark.parametrize(
    ("template", "eot_tokens", "told"),
    [
        (CHATML, None, []),
        ("{% for m in messages %}{{ m.content + eos_token }}{% endfor %}", None, []),
        (TWO, ["<|endoftext|>"], []),
        (CHATML.replace("im_end", "endoftext"), ["<|endoftext|>"], []),
        (CHATML.replace("im_end", "eot"), None, ["no end of a turn is trained"]),
        (CHATML.replace("im_end", "eot"), ["<|endoftext|>"], ["does not print '<|endoftext|>'", "no end of a turn is trained"]),
        (CHATML, ["<|a|>", "<|b|>"], ["does not print '<|a|>'", "does not print '<|b|>'"]),
    ],
)
def test_warnings(tokenizer: Path, template: str, eot_tokens: list[str] | None, told: list[str]) -> None:
    warnings = chat_format(template, tokenizer, {"eot_tokens": eot_tokens}).warnings
    assert [part for part, warning in zip(told, warnings, strict=True) if part in warning] == told

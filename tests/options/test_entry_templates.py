"""The chat template of a single dataset entry: what may be written, and what the error says otherwise."""

from __future__ import annotations

import pytest

from tests.options.configs import GOOD, accepted, refused

TEXT = "{{ messages }}"


def entry(*lines: str, place: str = "datasets") -> str:
    keys = "".join(f"    {line}\n" for line in lines)
    if place == "datasets":
        return GOOD.replace("    type: chat_template\n", f"    type: chat_template\n{keys}")
    return GOOD + f"test_datasets:\n  - path: test.jsonl\n    type: chat_template\n{keys}"


@pytest.mark.parametrize("place", ["datasets", "test_datasets"])
@pytest.mark.parametrize(
    ("lines", "key", "says"),
    [
        (["chat_template: jinja"], "chat_template", "chat_template_jinja of this entry is not set"),
        (["chat_template: chatml", f"chat_template_jinja: '{TEXT}'"], "chat_template", "is set too and would not be used"),
        (["chat_template_jinja: mine.jinja"], "chat_template_jinja", "no such file"),
        (["chat_template_jinja: '{% for %}'"], "chat_template_jinja", "not a Jinja template: line 1"),
        (["chat_template: chatlm"], "chat_template", "chatml"),
        (["chat_template: tokenizer_default_fallback_chatlm"], "chat_template", ""),
    ],
)
def test_what_is_refused(place: str, lines: list[str], key: str, says: str) -> None:
    ((_, found, rest),) = refused(entry(*lines, place=place))
    assert found.endswith(f".{key}") and says in rest


@pytest.mark.parametrize(
    "lines",
    [
        ["chat_template: llama3"],
        ["chat_template: tokenizer_default"],
        ["chat_template: tokenizer_default_fallback_chatml"],
        [f"chat_template_jinja: '{TEXT}'"],
        ["chat_template: jinja", f"chat_template_jinja: '{TEXT}'"],
        ["train_on_eot: last", "train_on_eos: none", "message_field_training: weight", "field_tools: werkzeug"],
    ],
)
def test_what_is_taken(lines: list[str]) -> None:
    assert accepted(entry(*lines)).options.datasets[0].model_fields_set > {"path", "type"}

"""Rules about the tokenizer, its tokens, its chat template, and the embeddings that follow it."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.options.reading.template_files import is_file_name
from pipeline.options.rules.broken import Broken, broken, listed
from pipeline.options.views import RecipeOptions


def template_files_are_there(options: RecipeOptions) -> Iterator[Broken]:
    """The text of a template file that exists has taken the place of its name."""
    works = "correct the path, which starts at the folder of this file, or write the template itself"
    named = {"": options.chat_template_jinja}
    for name in ("datasets", "test_datasets", "dedupe.against"):
        named |= {f"{name}.{index}.": entry.chat_template_jinja for index, entry in enumerate(listed(options, name))}
    for place, text in named.items():
        if text is not None and is_file_name(text):
            yield broken(f"{place}chat_template_jinja", "there is no such file", works)


def default_system_message_needs_chatml(options: RecipeOptions) -> Iterator[Broken]:
    """Only chatml has a place for a system message that a conversation lacks."""
    if options.default_system_message is not None and options.chat_template != "chatml":
        wrong = f"only chatml reads it, and chat_template is {options.chat_template or 'not set'}"
        yield broken("default_system_message chat_template", wrong, "write `chat_template: chatml`, or remove it")


def new_tokens_are_texts(options: RecipeOptions) -> Iterator[Broken]:
    """A token is at least one character, and is added once."""
    special = options.special_tokens.additional_special_tokens if options.special_tokens else None
    for key, tokens in (("tokens", options.tokens or []), ("special_tokens.additional_special_tokens", special or [])):
        for token in dict.fromkeys(tokens):
            if not token:
                yield broken(key, "a token is empty", "remove it")
            elif tokens.count(token) > 1:
                yield broken(key, f"{token!r} is given {tokens.count(token)} times", "keep one of them")


def overrides_are_distinct(options: RecipeOptions) -> Iterator[Broken]:
    """Two ids cannot have one text."""
    texts = list((options.added_tokens_overrides or {}).values())
    for token in dict.fromkeys(texts):
        if not token or texts.count(token) > 1:
            wrong = f"{token!r} is given to {texts.count(token)} ids" if token else "a token is empty"
            yield broken("added_tokens_overrides", wrong, "give each id a text of its own")


TOKENIZER = (
    template_files_are_there,
    default_system_message_needs_chatml,
    new_tokens_are_texts,
    overrides_are_distinct,
)

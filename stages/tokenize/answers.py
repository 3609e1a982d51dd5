"""Prompts and answers that a chat template puts into text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipeline.options.datasets import DatasetFormat
from stages.tokenize.chat import template_text
from stages.tokenize.columns import list_field, optional_text, text_in
from stages.tokenize.example import BadRow, Row, text_field
from stages.tokenize.formats import Surroundings
from stages.tokenize.messages import Message, MessageReader
from stages.tokenize.pairs import Texts
from stages.tokenize.template import ChatTemplate
from stages.tokenize.traced import turn_of

Read = Callable[[Row], tuple[Texts, ...]]
_MESSAGES = "messages"


class Renderer:
    """A template, and how messages are read for it."""

    def __init__(self, entry: DatasetFormat, around: Surroundings) -> None:
        self.template = ChatTemplate(template_text(entry, around), around.special_tokens, around.options.chat_template_kwargs)
        plain = DatasetFormat(
            type="chat_template", field_messages=_MESSAGES, message_property_mappings=entry.message_property_mappings, roles=entry.roles
        )
        self._reader = MessageReader(plain, words=self.template.words, knows_null=self.template.knows_null)

    def text(self, messages: Sequence[Any]) -> str:
        """The whole conversation."""
        return str.__str__(self.template.render(self._reader({_MESSAGES: list(messages)}).messages))

    def texts(self, history: Sequence[Any], answer: Any, *, tail: bool = False) -> Texts:
        """The prompt that asks for an answer, as it is when the model is asked, and the answer with what ends it.

        ``tail``: the answer keeps what the template prints after its end, such as a line break.

        Raises:
            BadRow: the template does not print the answer.
        """
        messages = self._reader({_MESSAGES: [*history, answer]}).messages
        prompt = self._prompt(messages)
        text = self._behind(prompt, messages)
        return prompt, text if tail else text.rstrip()

    def _prompt(self, messages: Sequence[Message]) -> str:
        return str.__str__(self.template.render(messages[:-1], add_generation_prompt=True))

    def _behind(self, prompt: str, messages: Sequence[Message]) -> str:
        """What the template prints of the last message. Some print the prompt otherwise once it is answered (a system text that
        only the last question gets, an empty thought): then it is looked for behind its question alone, and at last by its place."""
        whole = self.template.render(messages, add_generation_prompt=False)
        if whole.startswith(prompt):
            return str.__str__(whole)[len(prompt) :]
        short, opening = self.template.render(messages[-2:], add_generation_prompt=False), self._prompt(messages[-2:])
        if short.startswith(opening):
            return str.__str__(short)[len(opening) :]
        start = next((span[0] for span in whole.spans if turn_of(span[2]) == len(messages) - 1), None)
        if start is None:
            raise BadRow("the chat template changes or leaves out the answer")
        return str.__str__(whole)[start:]


def answer_texts(entry: DatasetFormat, around: Surroundings) -> Read:
    """Messages that are the prompt, and two answers: text, a message, or a list whose last message is the answer."""
    renderer = Renderer(entry, around)
    keys = {"role": "role", "content": "content"} | (entry.message_property_mappings or {})
    columns = (entry.field_chosen or "chosen", entry.field_rejected or "rejected")

    def message(role: str, value: Any, column: str) -> Any:
        if isinstance(value, str):
            return {keys["role"]: role, keys["content"]: value}
        if not isinstance(value, list | dict) or not value:
            raise BadRow(f"column {column!r} is missing" if value is None else f"column {column!r} holds no message")
        return value[-1] if isinstance(value, list) else value

    def read(row: Row) -> tuple[Texts, ...]:
        asked = row.get(entry.field_messages)
        history = [message("user", asked, entry.field_messages)] if isinstance(asked, str) else list_field(row, entry.field_messages)
        return tuple(renderer.texts(history, message("assistant", row.get(column), column)) for column in columns)

    return read


def conversation_texts(entry: DatasetFormat, around: Surroundings) -> Read:
    """Two whole conversations that differ in their last message. The prompt is what stands before it in the better one."""
    renderer = Renderer(entry, around)
    columns = (entry.field_chosen or "chosen", entry.field_rejected or "rejected")

    def read(row: Row) -> tuple[Texts, ...]:
        history = _before_the_last(list_field(row, columns[0]), columns[0])
        return tuple(renderer.texts(history, list_field(row, column)[-1]) for column in columns)

    return read


def orpo_texts(entry: DatasetFormat, around: Surroundings) -> Read:
    """As :func:`conversation_texts`, with a system column in front, and a prompt column in place of the only question."""
    renderer = Renderer(entry, around)

    def read(row: Row) -> tuple[Texts, ...]:
        history = _before_the_last(list_field(row, "chosen"), "chosen")
        if len(history) == 1 and isinstance(row.get("prompt"), str):
            history = [{"role": "user", "content": row["prompt"]}]
        system = optional_text(row, "system")
        if system and text_in(history[0], "role", "a message") != "system":
            history = [{"role": "system", "content": system}, *history]
        return tuple(renderer.texts(history, list_field(row, column)[-1], tail=True) for column in ("chosen", "rejected"))

    return read


def ready_texts(entry: DatasetFormat, around: Surroundings, columns: Sequence[str]) -> Read:
    """A prompt and answers as lists of messages; without a prompt, conversations whose beginning is the same."""
    renderer = Renderer(entry, around)

    def read(row: Row) -> tuple[Texts, ...]:
        answers = [list_field(row, column) for column in columns]
        history = list_field(row, "prompt") if row.get("prompt") is not None else _before_the_last(answers[0], columns[0])
        return tuple(renderer.texts(history, answer[-1]) for answer in answers)

    return read


def scored_texts(entry: DatasetFormat, around: Surroundings) -> Callable[[Row], tuple[str, ...]]:
    """Two whole conversations of a system text (where the row has one), an input, and an answer."""
    renderer = Renderer(entry, around)

    def read(row: Row) -> tuple[str, ...]:
        turns = [] if row.get("system") is None else [_turn("system", text_field(row, "system"))]
        turns.append(_turn("user", text_field(row, "input")))
        return tuple(renderer.text([*turns, _turn("assistant", text_field(row, column))]) for column in ("chosen", "rejected"))

    return read


def _turn(role: str, content: str) -> Mapping[str, str]:
    return {"role": role, "content": content}


def _before_the_last(messages: list[Any], column: str) -> list[Any]:
    if len(messages) < 2:
        raise BadRow(f"column {column!r} holds an answer and nothing before it")
    return messages[:-1]

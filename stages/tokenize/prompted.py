"""Prompts that the model answers itself (GRPO), and what the functions that score the answers are told of each."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from pipeline.options.datasets import DatasetFormat
from stages.tokenize.chat import template_text
from stages.tokenize.example import BadRow, Example, Piece, Prompt, Row, text_field
from stages.tokenize.formats import Surroundings
from stages.tokenize.messages import Message, MessageReader
from stages.tokenize.template import ChatTemplate

Columns = Callable[[dict[str, Any]], dict[str, Any]]
"""A row to the columns that matter: the prompt, and what scores its answers."""

RESERVED = frozenset(
    {"prompts", "completion", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric"}
    | {"environment", "environments", "image", "images"}
)
"""Arguments that TRL itself gives to functions that score answers, and columns that it takes for something else."""


class PromptFormat:
    """Rows with a prompt: a list of messages, which ends where the model is to answer, or text.

    Every other column is kept for the functions that score the answers.
    """

    def __init__(self, entry: DatasetFormat, around: Surroundings, column: str, columns: Columns = lambda row: row) -> None:
        self._column, self._columns = column, columns
        self._in_turns = None if entry.type is None and around.chat_template is None else _Turns(entry, around, column)

    def __call__(self, row: Row) -> Prompt:
        """The row's prompt.

        Raises:
            BadRow: it has none, or a column with a name that is taken.
        """
        row = self._columns(dict(row))
        prompt, example = self._asked(row)
        others = {name: value for name, value in row.items() if name != self._column}
        if taken := sorted(RESERVED & others.keys()):
            raise BadRow(f"column {taken[0]!r} has a name that TRL uses itself")
        return Prompt(example, _json({"prompt": prompt, **others}))

    def _asked(self, row: Row) -> tuple[Any, Example]:
        if not isinstance(row.get(self._column), list):
            text = text_field(row, self._column)
            if not text:
                raise BadRow("the prompt is empty")
            return text, Example((Piece.whole(text, False),), bos=True)
        if self._in_turns is None:
            raise BadRow("messages need a chat template, and the tokenizer has none")
        return self._in_turns(row)


class _Turns:
    """Messages as the template gets them, and the text with which it asks for the answer."""

    def __init__(self, entry: DatasetFormat, around: Surroundings, column: str) -> None:
        self._template = ChatTemplate(template_text(entry, around), around.special_tokens, around.options.chat_template_kwargs)
        read = entry.model_copy(update={"field_messages": column})
        self._read = MessageReader(read, words=self._template.words, knows_null=self._template.knows_null)

    def __call__(self, row: Row) -> tuple[list[Message], Example]:
        conversation = self._read(row)
        if conversation.messages[-1]["role"] == "assistant":
            raise BadRow("the last message is the assistant's, and a prompt ends where it is to answer")
        text = self._template.render(conversation.messages, conversation.tools, add_generation_prompt=True)
        return conversation.messages, Example((Piece.whole(str.__str__(text), False),))


def _json(columns: Mapping[str, Any]) -> str:
    """One form for equal columns. Numbers and texts are as they came; JSON can escape half a character, UTF-8 cannot."""
    text = json.dumps(columns, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise BadRow("text with a lone surrogate, which no UTF-8 can hold") from None
    return text


def prompt_format(entry: DatasetFormat, around: Surroundings) -> PromptFormat:
    """``chat_template``: the messages are the prompt. No type: the column ``prompt`` is, and holds messages or text."""
    return PromptFormat(entry, around, entry.field_messages if entry.type == "chat_template" else "prompt")


def own_prompt_format(columns: Columns, around: Surroundings) -> PromptFormat:
    """Rows that a function of the user's own makes, with the prompt in the column ``prompt``."""
    return PromptFormat(DatasetFormat(type=None), around, "prompt", columns)

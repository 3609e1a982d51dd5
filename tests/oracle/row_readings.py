"""Rows as Axolotl reads them, and texts of them that only ours show. Functions of a row change the row they get."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tests.oracle.context import Context, Raw, messages_of

_ROLES, _TEXTS = ("role", "from"), ("content", "value")


def plain_messages(row: dict[str, Any]) -> None:
    """Keep role and text of each message; null is an empty text."""
    for message in (message for message in messages_of(row) if message.keys() & {*_ROLES}):
        for key in [key for key in message if key not in (*_ROLES, *_TEXTS)]:
            del message[key]
        for key in _TEXTS:
            if key in message and message[key] is None:
                message[key] = ""


def said_besides(row: Raw, context: Context) -> Iterable[str]:
    """Names, and tools that are called."""
    for message in messages_of(row):
        name = message.get("name")
        if isinstance(name, str):
            yield name
        for call in message.get("tool_calls") or []:
            yield call["function"]["name"]


def has_more_keys(context: Context) -> bool:
    """Whether messages say more than role and text."""
    keys = {key for row in context.rows.values() for message in messages_of(row) for key in message}
    return not context.is_rl and bool(keys & {"name", "tool_calls", "tool_call_id", "weight"})


def without_reasoning(row: dict[str, Any]) -> None:
    """Answers without their reasoning."""
    for message in messages_of(row):
        message.pop("reasoning_content", None)


def thoughts(row: Raw, context: Context) -> Iterable[str]:
    """Their reasoning."""
    return [str(message["reasoning_content"]) for message in messages_of(row) if message.get("reasoning_content")]


def worst_first(row: dict[str, Any]) -> None:
    """Ranks the other way round."""
    for answer in row.get("answers") or []:
        answer["rank"] = -answer["rank"]


def two_best(row: Raw, context: Context) -> Iterable[str]:
    """The answers of the two lowest ranks."""
    return [item["answer"] for item in sorted(row["answers"], key=lambda item: item["rank"])[:2]]


def second_message(row: dict[str, Any]) -> None:
    """Conversations up to their second message."""
    for column in ("chosen", "rejected"):
        if isinstance(row.get(column), list):
            row[column] = row[column][:2]


def last_messages(row: Raw, context: Context) -> Iterable[str]:
    """What the last messages say."""
    return [row[column][-1]["content"] for column in ("chosen", "rejected")]


def one_question(row: dict[str, Any]) -> None:
    """The prompt in the place of every question."""
    for column in ("chosen", "rejected"):
        for message in row[column]:
            if message.get("role") == "user" and isinstance(row.get("prompt"), str):
                message["content"] = row["prompt"]


def questions(row: Raw, context: Context) -> Iterable[str]:
    """The questions of the conversation itself."""
    return [message["content"] for message in row["chosen"] if message.get("role") == "user"]


ANSWERS = ("chosen", "rejected", "completion")
"""Columns of answers."""


def null_text(row: dict[str, Any]) -> None:
    """Null as a word."""
    for column in ANSWERS:
        if column in row and row[column] is None:
            row[column] = "None"


def null_label(row: dict[str, Any]) -> None:
    """Null as false."""
    for segment in row.get("segments") or []:
        segment["label"] = bool(segment.get("label"))


def known_roles(row: dict[str, Any]) -> None:
    """Turns without those of unknown roles."""
    row["conversations"] = [turn for turn in row["conversations"] if turn.get("role") in ("system", "human", "bot")]

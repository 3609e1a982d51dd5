"""chat_template: conversations with exact masks, in one rendering and one tokenization each."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipeline.errors import RegrowError
from pipeline.options.datasets import DatasetFormat
from stages.tokenize.example import BadRow, Example, Format, Piece, Row
from stages.tokenize.formats import Surroundings
from stages.tokenize.template import ChatTemplate

_ROLES = {"user": ["human", "user"], "assistant": ["gpt", "assistant"], "system": ["system"], "tool": ["tool"]}
Message = Mapping[str, Any]


def chat_format(entry: DatasetFormat, around: Surroundings) -> Format:
    """Rows with a list of messages. Trained: the content of turns whose role is in ``roles_to_train``, and per
    ``train_on_eos`` the end-of-turn token after it, wherever the template puts it. Headers are never trained."""
    if around.chat_template is None:
        raise RegrowError(
            f"Dataset type {entry.type!r} needs a chat template, and the tokenizer has none.",
            "Set chat_template: chatml (or another), or chat_template_jinja.",
        )
    template = ChatTemplate(around.chat_template, around.special_tokens)
    read_messages = message_reader(entry)
    mask = turn_mask(entry, around.eos, around.options.train_on_inputs)

    def chat(row: Row) -> Example:
        messages = read_messages(row)
        text = template.render(messages)
        places = _places(text.spans, messages)
        return Example((Piece(str.__str__(text), mask(str.__str__(text), messages, places)),))

    return chat


def message_reader(entry: DatasetFormat) -> Callable[[Row], list[Message]]:
    """How an entry's rows give messages with ``role`` (the template's names) and ``content``."""
    keys = {"role": "role", "content": "content"} | (entry.message_property_mappings or {})
    names = {name: role for role, aliases in (entry.roles or _ROLES).items() for name in aliases}

    def read(row: Row) -> list[Message]:
        messages = row.get(entry.field_messages)
        if isinstance(messages, str):
            messages = _parse(messages, entry.field_messages)
        if not isinstance(messages, list) or not messages:
            raise BadRow(f"column {entry.field_messages!r} holds no messages")
        return [_message(message, keys, names) for message in messages]

    return read


def _parse(text: str, field: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise BadRow(f"column {field!r} is text that is not JSON") from None


def _message(message: Any, keys: Mapping[str, str], names: Mapping[str, str]) -> Message:
    if not isinstance(message, dict):
        raise BadRow("a message is not an object")
    taken = {name: message[key] for name, key in keys.items() if message.get(key) is not None}
    rest = {key: value for key, value in message.items() if key not in keys.values() and value is not None}
    role, content = taken.get("role"), taken.get("content")
    if not isinstance(role, str) or not isinstance(content, str):
        missing = keys["content"] if isinstance(role, str) else keys["role"]
        raise BadRow(f"a message has no text under {missing!r}")
    return rest | taken | {"role": names.get(role, role)}


def _places(spans: Sequence[tuple[int, int, int]], messages: Sequence[Message]) -> list[tuple[int, int] | None]:
    """Where each message's content stands in the text; ``None`` when the template left it out or printed it changed."""
    places: list[tuple[int, int] | None] = [None] * len(messages)
    for start, end, turn in spans:
        if places[turn] is not None:
            raise BadRow(f"the chat template prints message {turn} more than once")
        places[turn] = (start, end)
    return places


def turn_mask(
    entry: DatasetFormat, eos: str, train_on_inputs: bool
) -> Callable[[str, Sequence[Message], list[tuple[int, int] | None]], tuple[tuple[int, int], ...]]:
    """Which characters are trained: contents of trained turns, and the terminators that ``train_on_eos`` asks for."""
    roles = set(entry.roles_to_train if entry.roles_to_train is not None else ["assistant"])

    def mask(text: str, messages: Sequence[Message], places: list[tuple[int, int] | None]) -> tuple[tuple[int, int], ...]:
        trained = [train_on_inputs or message["role"] in roles for message in messages]
        for turn, place in enumerate(places):
            if trained[turn] and place is None and messages[turn]["content"].strip():
                raise BadRow("the chat template changes or leaves out a trained turn")
        ends = _terminators(text, places, eos)
        located = [turn for turn, place in enumerate(places) if place is not None]
        wanted = {
            "turn": {turn for turn in located if trained[turn]},
            "all": set(located),
            "last": set(located[-1:]),
            "none": set(),
        }[entry.train_on_eos]
        contents = [place for turn, place in enumerate(places) if place is not None and trained[turn]]
        return tuple(sorted([*contents, *(ends[turn] for turn in sorted(wanted) if turn in ends)]))

    return mask


def _terminators(text: str, places: Sequence[tuple[int, int] | None], eos: str) -> dict[int, tuple[int, int]]:
    """The first end-of-turn token between a turn's content and the next turn's."""
    located = sorted((place[0], place[1], turn) for turn, place in enumerate(places) if place is not None)
    limits = [start for start, _, _ in located[1:]] + [len(text)]
    found = {turn: text.find(eos, end, limit) for (_, end, turn), limit in zip(located, limits, strict=True)}
    return {turn: (at, at + len(eos)) for turn, at in found.items() if at >= 0}

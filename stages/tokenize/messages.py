"""From a row's columns to the messages that a chat template gets."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.options.datasets import DatasetFormat
from stages.tokenize.example import BadRow, Row
from stages.tokenize.thinking import split_thinking
from stages.tokenize.tools import parsed, tool_calls_in, tools_in, without_nulls
from stages.tokenize.traced import Traced
from stages.tokenize.training_detail import CharSpans, Choice, Part, TrainingChoice

ROLES = {"user": ["human", "user"], "assistant": ["gpt", "assistant"], "system": ["system"], "tool": ["tool"]}
"""Names of roles in the template, each with the names that data may use, where an entry gives no ``roles``."""

NO_CALLS = "a message has tool calls alone, which the chat template does not print"

_PLAIN = frozenset({"role", "content", "name", "tool_call_id"})
"""Keys of a message that add nothing to what its turn says."""

Message = dict[str, Any]


@dataclass(slots=True)
class Conversation:
    """A row's messages and what is to be trained of them.

    Attributes:
        messages: what the template gets; content and reasoning are :class:`Traced`.
        trained: for every turn, whether it is.
        details: of turns trained in part, the trained characters of content (source ``t``) and reasoning (source ``~t``).
        rich: turns that say more than their content (reasoning, tool calls, whatever else the template prints).
        tools: tool descriptions, or ``None``.
    """

    messages: list[Message] = field(default_factory=list)
    trained: list[bool] = field(default_factory=list)
    details: dict[int, CharSpans] = field(default_factory=dict)
    rich: set[int] = field(default_factory=set)
    tools: list[Any] | None = None

    def plain(self, turn: int, content: str) -> Message:
        """The turn, if it said only ``content``."""
        return {key: value for key, value in self.messages[turn].items() if key in _PLAIN} | {"content": content}


class MessageReader:
    """How an entry's rows give conversations.

    ``words``: keys of messages that the template can print; ``None``: all.
    ``knows_null``: the template tells a content of null from an empty one.
    """

    def __init__(
        self, entry: DatasetFormat, train_on_inputs: bool = False, words: Collection[str] | None = None, knows_null: bool = False
    ) -> None:
        self._column, self._tools = entry.field_messages, entry.field_tools or "tools"
        self._thinking = entry.template_thinking_key or "reasoning_content"
        mapping = {"role": "role", "content": "content", self._thinking: entry.field_thinking or "reasoning_content"}
        self._keys = mapping | (entry.message_property_mappings or {})
        self._role, self._content = self._keys.pop("role"), self._keys.pop("content")
        self._mapped = {self._role, self._content, *self._keys.values()}
        self._names = {name: role for role, names in (entry.roles or ROLES).items() for name in names}
        self._choice = TrainingChoice(entry, self._names, train_on_inputs)
        self._words, self._nothing = words, None if knows_null else ""
        self._drop_system, self._split = bool(entry.drop_system_message), bool(entry.split_thinking)

    def __call__(self, row: Row) -> Conversation:
        """The row's conversation.

        Raises:
            BadRow: it holds none, or a message of it cannot be used.
        """
        conversation, messages = Conversation(tools=tools_in(row.get(self._tools), self._tools)), self._messages(row)
        first = messages[0]
        role = first.get(self._role) if isinstance(first, dict) else None
        leads = isinstance(role, str) and self._names.get(role, role) == "system"
        if leads and self._drop_system:
            messages = messages[1:]
        elif not leads and not self._drop_system and row.get("system") is not None:
            self._add(conversation, {self._role: "system", self._content: row["system"]})
        for message in messages:
            self._add(conversation, message)
        if not conversation.messages:
            raise BadRow(f"column {self._column!r} holds a system message alone, which drop_system_message leaves out")
        return conversation

    def _messages(self, row: Row) -> list[Any]:
        messages = row.get(self._column)
        if isinstance(messages, str):
            messages = parsed(messages, f"column {self._column!r}")
        if not isinstance(messages, list) or not messages:
            raise BadRow(f"column {self._column!r} holds no messages")
        return messages

    def _add(self, conversation: Conversation, message: Any) -> None:
        if not isinstance(message, dict):
            raise BadRow("a message is not an object")
        turn, role, content = len(conversation.messages), message.get(self._role), message.get(self._content)
        if type(role) is str and type(content) is str and len(message) == 2:  # the usual message, by the short way
            role = self._names.get(role, role)
            read: Message = {"role": role, "content": Traced.whole(content, turn)}
            choice: Choice | bool = self._choice.by_role(role)
        else:
            read, choice = self._read(message, turn)
        if self._split and read["role"] == "assistant" and read["content"]:
            split_thinking(read, self._thinking)
        if len(read) > 2 and not _PLAIN.issuperset(read):
            conversation.rich.add(turn)
        conversation.messages.append(read)
        conversation.trained.append(bool(choice))
        if isinstance(choice, Choice) and choice.trained:
            conversation.details.update(choice.details(turn))

    def _read(self, message: Mapping[str, Any], turn: int) -> tuple[Message, Choice]:
        role = message.get(self._role)
        if not isinstance(role, str):
            raise BadRow(f"a message has no role: {_found(message, self._role)}")
        read: Message = {"role": self._names.get(role, role), "content": self._nothing}
        for key, value in self._others(message):
            read[key] = tool_calls_in(value) if key == "tool_calls" else value
        said, says_more = message.get(self._content), not _PLAIN.issuperset(read)
        if not said and not says_more and message.get("tool_calls"):
            raise BadRow(NO_CALLS)
        content, parts = _text(said, f"content: {_found(message, self._content)}", optional=says_more)
        if content is not None:
            read["content"] = Traced.whole(content, turn)
        thinking, thinking_parts = _text(read.get(self._thinking), "reasoning that is text", optional=True)
        if thinking is not None:
            read[self._thinking] = Traced.whole(thinking, ~turn)
            if "thinking" in (self._words or ()):  # as transformers does for templates that know it by that name
                read.setdefault("thinking", read[self._thinking])
        return read, self._choice.of(message, read["role"], parts, thinking_parts, content or "", thinking or "")

    def _others(self, message: Mapping[str, Any]) -> list[tuple[str, Any]]:
        """Further properties that the template may print: those of the mapping, and those of the same name."""
        named = [(key, message[data]) for key, data in self._keys.items() if message.get(data) is not None]
        same = [(key, value) for key, value in message.items() if value is not None and key not in self._mapped and key not in self._keys]
        return [
            (key, without_nulls(value))
            for key, value in same + named
            if key not in ("role", "content") and (self._words is None or key in self._words)
        ]


def _found(message: Mapping[str, Any], key: str) -> str:
    if key not in message:
        return f"there is no {key!r}"
    return f"{key!r} is null" if message[key] is None else f"{key!r} is not text"


def _text(value: Any, what: str, *, optional: bool) -> tuple[str | None, list[Part]]:
    """Text, or the texts of a list of parts put together, and the parts."""
    if isinstance(value, list):
        parts = [_part(part) for part in value]
        return "".join(part.text for part in parts), parts
    if value is None and optional:
        return None, []
    if not isinstance(value, str):
        raise BadRow(f"a message has no {what}")
    return value, []


def _part(part: Any) -> Part:
    if isinstance(part, str):
        return Part(part, None)
    if not isinstance(part, dict):
        raise BadRow("a part of a message's content is neither text nor an object")
    text = next((part[key] for key in ("text", "content", "value") if isinstance(part.get(key), str)), None)
    if text is None or part.get("type") not in (None, "text"):
        raise BadRow(f"a part of a message's content is no text (its type: {part.get('type')!r})")
    return Part.flagged(text, part)

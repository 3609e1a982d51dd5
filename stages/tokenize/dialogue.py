"""Conversations of types that have fixed texts around their turns: pygmalion, llama2_chat, messages."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.chat_templates import built_in
from pipeline.errors import RegrowError
from pipeline.options.datasets import DatasetFormat
from stages.tokenize.columns import list_field, text_in
from stages.tokenize.example import BadRow, Example, Format, Piece, Row

_PYGMALION = {"system": "<|system|>", "human": "<|user|>", "bot": "<|model|>"}


def pygmalion_format(eos: str, train_on_inputs: bool) -> Format:
    """Column conversations with role and value. Turns are tokenized apart; a bot's text is trained, with an end after it."""

    def turn(item: Any) -> list[Piece]:
        role, text = text_in(item, "role", "a turn"), text_in(item, "value", "a turn")
        if role not in _PYGMALION:
            raise BadRow(f"the role {role!r} is none of {', '.join(_PYGMALION)}")
        if role == "system":
            return [Piece.whole(f"<|system|>Persona: {text.removesuffix(_START).strip()}", train_on_inputs)]
        tag, text = _PYGMALION[role], text.strip()
        if role == "human":
            return [Piece.whole(f"{tag} {text}", train_on_inputs)]
        whole = f"{tag} {text}"
        spoken = Piece(whole, ((0 if train_on_inputs else len(tag), len(whole)),))
        return [spoken] if text.endswith(eos) else [spoken, Piece.whole(eos, True)]

    def pygmalion(row: Row) -> Example:
        return Example(tuple(piece for item in list_field(row, "conversations") for piece in turn(item)), bos=True)

    return pygmalion


_START = "\n<START>"

_LLAMA2_SYSTEM = (
    "You are a helpful, respectful and honest assistant. Always answer as helpfully as possible, while being safe. "
    "Your answers should not include any harmful, unethical, racist, sexist, toxic, dangerous, or illegal content. "
    "Please ensure that your responses are socially unbiased and positive in nature.\n\n"
    "If a question does not make any sense, or is not factually coherent, explain why instead of answering something not correct. "
    "If you don't know the answer to a question, please don't share false information."
)


def llama2_format(train_on_inputs: bool) -> Format:
    """Column conversations with from (human and gpt in turn, perhaps a system turn first) and value, as Llama 2 Chat has them.

    Answers and the ``</s>`` after them are trained. A question at the end, which has no answer, is left out.
    """

    def llama2(row: Row) -> Example:
        turns = [(text_in(item, "from", "a turn"), text_in(item, "value", "a turn")) for item in list_field(row, "conversations")]
        system = turns.pop(0)[1] if turns[0][0] == "system" else _LLAMA2_SYSTEM
        text, spans = f"[INST] <<SYS>>\n{system}\n<</SYS>>\n\n", []
        for number, (question, answer) in enumerate(_exchanges(turns)):
            text += f"{question}[/INST]" if number == 0 else f"[INST] {question} [/INST]"
            start = len(text)
            text += f" {answer} </s>"
            spans.append((start, len(text)))
            text += "<s>"
        return Example((Piece(text, ((0, len(text)),) if train_on_inputs else tuple(spans)),), bos=True)

    return llama2


def _exchanges(turns: list[tuple[str, str]]) -> list[tuple[str, str]]:
    turns = turns[1:] if turns and turns[0][0] == "gpt" else turns
    for place, (speaker, text) in enumerate(turns):
        if speaker != ("human", "gpt")[place % 2]:
            raise BadRow(f"turn {place} is from {speaker!r}: human and gpt must take turns")
        if not text.strip():
            raise BadRow(f"turn {place} is empty")
    if len(turns) < 2:
        raise BadRow("no question with an answer")
    texts = [text.strip() for _, text in turns]
    return list(zip(texts[::2], texts[1::2], strict=False))


_ROLES = {name: name for name in ("system", "user", "assistant", "tool", "ipython")} | {"human": "user", "gpt": "assistant"}
_ROLE_KEYS, _TEXT_KEYS, _TRAIN_KEYS = ("role", "from"), ("value", "text", "content"), ("train", "weight")
_HEADERS = {"chatml": "<|im_start|>{role}\n", "llama3": "<|start_header_id|>{role}<|end_header_id|>\n\n"}
_ENDS = {"chatml": ("<|im_end|>", "\n"), "llama3": ("<|eot_id|>", "")}


def messages_format(entry: DatasetFormat, chat_template: str | None, train_on_inputs: bool) -> Format:
    """Messages in ChatML or in the texts of Llama 3, tokenized apart. Trained: answers and the end after them, or what a
    message's own key train or weight says; a content may be a list of texts, calls and results with a weight each.

    ``chat_template``: the tokenizer's, which decides when the entry names none.

    Raises:
        RegrowError: another template is asked for.
    """
    asked = entry.chat_template or ("llama3" if chat_template == built_in("llama3") else "chatml")
    name = "llama3" if asked.startswith("llama3") else asked
    if name not in _HEADERS:
        raise RegrowError(f"Dataset type 'messages' has the texts of chatml and llama3 only, not of {name}.", "Write type: chat_template.")
    keys = entry.message_property_mappings or {}
    roles = (keys["role"],) if "role" in keys else _ROLE_KEYS
    texts = (keys["content"],) if "content" in keys else _TEXT_KEYS
    weights = (entry.message_field_training,) if entry.message_field_training else _TRAIN_KEYS

    def message(item: Any, first: bool) -> Piece:
        said, content, trains = (_under(item, names) for names in (roles, texts, weights))
        role = _ROLES.get(said) if isinstance(said, str) else None
        if role is None:
            raise BadRow(f"the role {said!r} is none of {', '.join(_ROLES)}")
        trained = train_on_inputs or (role == "assistant" if trains is None else bool(trains))
        shown = "ipython" if name == "llama3" and role == "tool" else role
        header = ("<|begin_of_text|>" if name == "llama3" and first else "") + _HEADERS[name].format(role=shown)
        end, after = _ENDS[name]
        said_parts = ((text, weight and trained) for text, weight in _contents(content))
        return _joined([(header, False), *said_parts, (end, trained), (after, False)])

    def messages(row: Row) -> Example:
        return Example(tuple(message(item, place == 0) for place, item in enumerate(list_field(row, entry.field_messages))))

    return messages


def _under(item: Any, names: Sequence[str]) -> Any:
    if not isinstance(item, dict):
        raise BadRow("a message is not an object")
    return next((item[name] for name in names if item.get(name) is not None), None)


def _contents(content: Any) -> list[tuple[str, bool]]:
    """Texts of a message, and whether their own weight lets them be trained."""
    if isinstance(content, str):
        return [(content, True)]
    if not isinstance(content, list):
        raise BadRow("a message has no content")
    return [part for item in content for part in _part(item)]


_TAGS = {"tool_call": "arguments", "tool_response": "content"}


def _part(item: Any) -> list[tuple[str, bool]]:
    kind = text_in(item, "type", "a part of a content")
    weight = item.get("weight") not in (0, False)
    if kind == "text":
        text = text_in(item, "value", "a part of a content")
        return [(text + "\n" if item.get("has_newline") and not text.endswith("\n") else text, weight)]
    value = item.get("value")
    if kind not in _TAGS or not isinstance(value, dict) or not isinstance(value.get("name"), str) or _TAGS[kind] not in value:
        raise BadRow(f"a part of a content is neither text nor a tool_call or tool_response with name and {' or '.join(_TAGS.values())}")
    return [(f"<{kind}>\n", True), (json.dumps(_call(value, _TAGS[kind])) + "\n", weight), (f"</{kind}>\n", True)]


def _call(value: Mapping[str, Any], key: str) -> dict[str, Any]:
    named = {"name": value["name"], key: value[key]}
    return named if value.get("id") is None else named | {"id": value["id"]}


def _joined(parts: Sequence[tuple[str, bool]]) -> Piece:
    text, spans = "", []
    for part, trained in parts:
        if trained and part:
            spans.append((len(text), len(text) + len(part)))
        text += part
    return Piece(text, tuple(spans))

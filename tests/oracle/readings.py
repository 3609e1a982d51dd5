"""Where Axolotl reads a config or its rows otherwise: changes of the case after which we make what it makes.

A reading says all of a difference. The changed case is compared as strictly as any other, rows that the reading leaves as they
are must come out the same with and without it, and ours must show what Axolotl loses, or say why the row is left out.
Each has a section of its name in docs/differences.md.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from tests.oracle.case import Made, Row, Sequence
from tests.oracle.context import Context, Raw, entries_of, messages_of
from tests.oracle.ours import Change

Texts = Callable[[Raw, Context], Iterable[str]]
_ROLES, _TEXTS = ("role", "from"), ("content", "value")


@dataclass(frozen=True)
class Reading:
    """A change of the case, and what our rows of the unchanged case must show.

    Attributes:
        applies: whether the config and the rows give the reading something to change.
        change: of the case.
        shows: texts of a row of the data that stand in what we make of it, where that differs from Axolotl's.
        refusal: what we say where we stop at the unchanged case.
        fewer: whether our rows are a part of Axolotl's; then nothing else may differ.
        anew: whether the whole text around what is said may differ; else only what is shown may.
        then: from our rows of the changed case to Axolotl's, where the case alone cannot say it.
    """

    applies: Callable[[Context], bool]
    change: Change
    shows: Texts = lambda row, context: ()
    refusal: str | None = None
    fewer: bool = False
    anew: bool = False
    then: Callable[[Made, Context], Made] = lambda made, context: made

    def is_all(self, ours: Made, theirs: Made, context: Context) -> bool:
        """Whether the reading is all that makes ``ours`` (of the case) and ``theirs`` (of the changed one) differ."""
        if ours.error is not None:
            return self.refusal is not None and re.search(self.refusal, ours.error) is not None
        if theirs.error is not None:  # Axolotl stops where we make something of every row
            return {row.number for row in ours.rows} == set(context.rows)
        made: dict[Any, list[Row]] = {}
        for row in theirs.rows:
            made.setdefault(row.number, []).append(row)
        if self.fewer:
            return 0 < len(ours.rows) < len(theirs.rows) and all(row in made.get(row.number, ()) for row in ours.rows)
        return all(any(self._same(row, other, context) for other in made.get(row.number, [])) for row in ours.rows)

    def _same(self, row: Row, other: Row, context: Context) -> bool:
        return row == other or (self._shown(row, other, context) and _answers_are_trained(row))

    def _shown(self, row: Row, other: Row, context: Context) -> bool:
        raw = context.raw(row.number)
        if self.change.row is not None:
            changed = _copy(raw)
            self.change.row(changed)
            if changed == raw:
                return False
        texts = [text.strip() for text in self.shows(raw, context) if text.strip()]
        here = all(any(text in context.decode(answer.ids) for answer in row.answers) for text in texts)
        said = [chunk for pair in zip(row.answers, other.answers, strict=True) for chunk in _changed(*pair, context)]
        known = self.anew or all(any(text in chunk or chunk in text for text in texts) for chunk in said if not _TAGS.fullmatch(chunk))
        return bool(texts) and here and known


_TAGS = re.compile(r"(</?\w+>|[ \n])*")


def _changed(ours: Sequence, theirs: Sequence, context: Context) -> list[str]:
    """Texts of the stretches of ours that theirs does not have, or trains otherwise."""
    left, right = (list(zip(made.ids, made.labels, strict=True)) for made in (theirs, ours))
    stretches = difflib.SequenceMatcher(None, left, right, autojunk=False).get_opcodes()
    return [context.decode(ours.ids[start:end]).strip(" \n") for kind, _, _, start, end in stretches if kind != "equal" and start < end]


def _answers_are_trained(row: Row) -> bool:
    """Of a row with two answers or a verdict: all from some token on is trained, and nothing before it."""
    if row.rejected is None and row.wanted is None:
        return True
    starts = [(made, next((at for at, label in enumerate(made.labels) if label != -100), 0)) for made in row.answers]
    return all(made.labels[start:] == made.ids[start:] for made, start in starts)


def _copy(row: Any) -> Any:
    if isinstance(row, dict):
        return {key: _copy(value) for key, value in row.items()}
    return [_copy(value) for value in row] if isinstance(row, list) else row


def _entry_has(*keys: str) -> Callable[[Context], bool]:
    return lambda context: any(entry.get(key) is not None for entry in context.entries() for key in keys)


def _without(*keys: str) -> Change:
    def drop(config: dict[str, Any]) -> None:
        for holder in (config, *entries_of(config)):
            for key in keys:
                holder.pop(key, None)

    return Change(drop)


def _is_rl(context: Context) -> bool:
    return bool(context.config.get("rl"))


# Options


def _dataset_option(row: Raw, context: Context) -> Iterable[str]:
    """What the template of the entry alone prints of the last message."""
    return [str(message["content"]) for message in messages_of(row) if isinstance(message.get("content"), str)]


def _reasoning(row: Raw, context: Context) -> Iterable[str]:
    keys = [entry.get("field_thinking") for entry in context.entries()]
    thoughts = [str(message[key]).strip() for message in messages_of(row) for key in keys if key and message.get(key)]
    return thoughts[-1:]


def _tools(row: Raw, context: Context) -> Iterable[str]:
    columns = [row.get(entry.get("field_tools", "")) for entry in context.entries()]
    return [tool["function"]["name"] for tools in columns if isinstance(tools, list) for tool in tools]


def _system_message(row: Raw, context: Context) -> Iterable[str]:
    return [str(context.config["default_system_message"])]


def _one_policy(config: dict[str, Any]) -> None:
    for entry in entries_of(config):
        entry["train_on_eos"] = entry.get("train_on_eot") or entry.get("train_on_eos")


def _has_two_policies(context: Context) -> bool:
    policies = [{entry.get("train_on_eos"), entry.get("train_on_eot")} for entry in context.entries()]
    return any(len(found) == 2 and None not in found for found in policies)


# Rows


def _plain_messages(row: dict[str, Any]) -> None:
    for message in (message for message in messages_of(row) if message.keys() & {*_ROLES}):
        for key in [key for key in message if key not in (*_ROLES, *_TEXTS)]:
            del message[key]
        for key in _TEXTS:
            if key in message and message[key] is None:
                message[key] = ""


def _said_besides(row: Raw, context: Context) -> Iterable[str]:
    for message in messages_of(row):
        name = message.get("name")
        if isinstance(name, str):
            yield name
        for call in message.get("tool_calls") or []:
            yield call["function"]["name"]


def _has_more_keys(context: Context) -> bool:
    keys = {key for row in context.rows.values() for message in messages_of(row) for key in message}
    return not _is_rl(context) and bool(keys & {"name", "tool_calls", "tool_call_id", "weight"})


def _without_reasoning(row: dict[str, Any]) -> None:
    for message in messages_of(row):
        message.pop("reasoning_content", None)


def _thoughts(row: Raw, context: Context) -> Iterable[str]:
    return [str(message["reasoning_content"]) for message in messages_of(row) if message.get("reasoning_content")]


def _worst_first(row: dict[str, Any]) -> None:
    for answer in row.get("answers") or []:
        answer["rank"] = -answer["rank"]


def _two_best(row: Raw, context: Context) -> Iterable[str]:
    return [item["answer"] for item in sorted(row["answers"], key=lambda item: item["rank"])[:2]]


def _second_message(row: dict[str, Any]) -> None:
    for column in ("chosen", "rejected"):
        if isinstance(row.get(column), list):
            row[column] = row[column][:2]


def _last_messages(row: Raw, context: Context) -> Iterable[str]:
    return [row[column][-1]["content"] for column in ("chosen", "rejected")]


def _one_question(row: dict[str, Any]) -> None:
    for column in ("chosen", "rejected"):
        for message in row[column]:
            if message.get("role") == "user" and isinstance(row.get("prompt"), str):
                message["content"] = row["prompt"]


def _questions(row: Raw, context: Context) -> Iterable[str]:
    return [message["content"] for message in row["chosen"] if message.get("role") == "user"]


_ANSWERS = ("chosen", "rejected", "completion")


def _null_text(row: dict[str, Any]) -> None:
    for column in _ANSWERS:
        if column in row and row[column] is None:
            row[column] = "None"


def _null_label(row: dict[str, Any]) -> None:
    for segment in row.get("segments") or []:
        segment["label"] = bool(segment.get("label"))


def _known_roles(row: dict[str, Any]) -> None:
    row["conversations"] = [turn for turn in row["conversations"] if turn.get("role") in ("system", "human", "bot")]


# Rows that the changed case cannot give


def _shard_of_all(made: Made, context: Context) -> Made:
    """The stretch that a shard is when rows that we leave out count too."""
    number, index = int(context.config["dataset_shard_num"]), int(context.config.get("dataset_shard_idx") or 0)
    order = sorted(context.rows)
    size, more = divmod(len(order), number)
    start = index * size + min(index, more)
    chosen = set(order[start : start + size + (index < more)])
    return Made(tuple(row for row in made.train if row.number in chosen), made.evaluation, rejected=made.rejected)


def _joined(made: Made, context: Context) -> Made:
    """Documents one behind the other in rows of sequence_len, an end and a token that is not trained behind each, and the rest empty."""
    length, eos = int(context.config["sequence_len"]), context.eos or 0
    documents: dict[Any, tuple[int, ...]] = {}
    for row in made.train:
        documents[row.number] = documents.get(row.number, ()) + row.chosen.ids
    rows: list[list[tuple[int, int]]] = []
    for number, ids in documents.items():
        text = ids if str(context.raw(number).get("text")).endswith(context.decode([eos])) else ids[:-1]
        document = [(token, token) for token in (*text[: length - 2], eos)] + [(eos, -100)]
        if not rows or len(rows[-1]) + len(document) > length:
            rows.append([])
        rows[-1] += document
    whole = [[*row, *[(eos, -100)] * (length - len(row))] for row in rows]
    return Made(tuple(Row(Sequence(*map(tuple, zip(*row, strict=True)))) for row in whole))


_OPTIONS = ("ds_type", "chat_template", "chat_template_jinja", "message_property_mappings", "roles")
_SHARES = ("weight", "shards", "shards_idx", "preprocess_shards")
_STEPS = ("step_separator", "max_completion_length", "train_on_last_step_only")


def _drop_from_entries(*keys: str) -> Change:
    def drop(config: dict[str, Any]) -> None:
        for entry in entries_of(config):
            for key in keys:
                entry.pop(key, None)

    return Change(drop)


def _typed(*names: str) -> Callable[[Context], bool]:
    return lambda context: context.type_is(*names)


def _has_column(*names: str) -> Callable[[Context], bool]:
    return lambda context: any(row.get(name) is None and name in row for row in context.rows.values() for name in names)


READINGS: dict[str, Reading] = {
    "options-of-preferences": Reading(
        lambda context: _is_rl(context) and _entry_has(*_OPTIONS)(context), _drop_from_entries(*_OPTIONS), _dataset_option, anew=True
    ),
    "shares-of-preferences": Reading(
        lambda context: _is_rl(context) and _entry_has(*_SHARES)(context), _drop_from_entries(*_SHARES), fewer=True
    ),
    "options-of-steps": Reading(_entry_has(*_STEPS), _drop_from_entries(*_STEPS), lambda row, context: [row["prompt"]], anew=True),
    "reasoning-under-another-key": Reading(_entry_has("field_thinking"), _without("field_thinking", "template_thinking_key"), _reasoning),
    "tools-in-another-column": Reading(_entry_has("field_tools"), _without("field_tools"), _tools),
    "default-system-message": Reading(
        lambda context: "default_system_message" in context.config,
        _without("default_system_message"),
        _system_message,
        r"default_system_message: .* — only chatml reads it",
    ),
    "two-policies-for-one-token": Reading(_has_two_policies, Change(_one_policy), refusal=r"end-of-sequence token .* ends turns for both"),
    "shards-of-rows-that-train": Reading(
        lambda context: "dataset_shard_num" in context.config,
        _without("dataset_shard_num", "dataset_shard_idx"),
        fewer=True,
        then=_shard_of_all,
    ),
    "documents-joined-by-packing": Reading(
        lambda context: bool(context.config.get("pretraining_sample_concatenation")),
        _without("pretraining_sample_concatenation"),
        refusal=r"pretraining_sample_concatenation: .* — refused",
        then=_joined,
    ),
    "refused-options": Reading(
        _entry_has("preprocess_shards"), _without("preprocess_shards"), refusal=r"preprocess_shards: .* — refused: rows are streamed"
    ),
    "keys-of-messages": Reading(_has_more_keys, Change(row=_plain_messages), _said_besides),
    "reasoning-of-preferences": Reading(_is_rl, Change(row=_without_reasoning), _thoughts),
    "nectar-ranks": Reading(_typed("zephyr.nectar"), Change(row=_worst_first), _two_best),
    "answers-that-are-not-the-second-message": Reading(
        _typed("chatml.ultra", "llama3.ultra", "chatml.argilla_chat", "llama3.argilla_chat"), Change(row=_second_message), _last_messages
    ),
    "questions-before-the-last": Reading(
        lambda context: context.config.get("rl") == "orpo" and any("prompt" in row for row in context.rows.values()),
        Change(row=_one_question),
        _questions,
    ),
    "null-is-no-text": Reading(lambda context: _is_rl(context) and _has_column(*_ANSWERS)(context), Change(row=_null_text)),
    "null-is-no-label": Reading(
        _typed("input_output"), Change(row=_null_label), refusal=r"no row can be used: a segment has no true or false under 'label'"
    ),
    "turns-of-unknown-roles": Reading(_typed("pygmalion"), Change(row=_known_roles), refusal=r"no row can be used: the role .* is none of"),
}
"""By the name of their section in docs/differences.md."""

UNKNOWN = "unknown-keys"
_UNKNOWN = re.compile(r"params\.yaml:\d+: ([\w.]+): .* — no such option")


def without_unknown_keys(error: str) -> Reading | None:
    """A key that neither of the two knows: we stop, Axolotl reads on as if it were not there."""
    keys = [match[1].split(".")[-1] for match in _UNKNOWN.finditer(error)]
    others = [line for line in error.splitlines() if line.startswith("params.yaml:") and not _UNKNOWN.match(line)]
    if not keys or others:
        return None
    return Reading(lambda context: True, _without(*keys), refusal=_UNKNOWN.pattern)

"""Where Axolotl reads a config or its rows otherwise: changes of the case after which we make what it makes.

A reading says all of a difference. The changed case is compared as strictly as any other, rows that the reading leaves as they
are must come out the same with and without it, and ours must show what Axolotl loses, or say why the row is left out.
Each has a section of its name in docs/differences.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from tests.oracle.case import Made, Row, Sequence
from tests.oracle.context import Context, Raw, entries_of, messages_of
from tests.oracle.ours import Change
from tests.oracle.reading import Reading
from tests.oracle.row_readings import (
    ANSWERS,
    has_more_keys,
    known_roles,
    last_messages,
    null_label,
    null_text,
    one_question,
    plain_messages,
    questions,
    said_besides,
    second_message,
    thoughts,
    two_best,
    without_reasoning,
    worst_first,
)


def _entry_has(*keys: str) -> Callable[[Context], bool]:
    return lambda context: any(entry.get(key) is not None for entry in context.entries() for key in keys)


def _without(*keys: str) -> Change:
    def drop(config: dict[str, Any]) -> None:
        for holder in (config, *entries_of(config)):
            for key in keys:
                holder.pop(key, None)

    return Change(drop)


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
        lambda context: context.is_rl and _entry_has(*_OPTIONS)(context), _drop_from_entries(*_OPTIONS), _dataset_option, anew=True
    ),
    "shares-of-preferences": Reading(
        lambda context: context.is_rl and _entry_has(*_SHARES)(context), _drop_from_entries(*_SHARES), fewer=True
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
    "keys-of-messages": Reading(has_more_keys, Change(row=plain_messages), said_besides),
    "reasoning-of-preferences": Reading(lambda context: context.is_rl, Change(row=without_reasoning), thoughts),
    "nectar-ranks": Reading(_typed("zephyr.nectar"), Change(row=worst_first), two_best),
    "answers-that-are-not-the-second-message": Reading(
        _typed("chatml.ultra", "llama3.ultra", "chatml.argilla_chat", "llama3.argilla_chat"), Change(row=second_message), last_messages
    ),
    "questions-before-the-last": Reading(
        lambda context: context.config.get("rl") == "orpo" and any("prompt" in row for row in context.rows.values()),
        Change(row=one_question),
        questions,
    ),
    "null-is-no-text": Reading(lambda context: context.is_rl and _has_column(*ANSWERS)(context), Change(row=null_text)),
    "null-is-no-label": Reading(
        _typed("input_output"), Change(row=null_label), refusal=r"no row can be used: a segment has no true or false under 'label'"
    ),
    "turns-of-unknown-roles": Reading(_typed("pygmalion"), Change(row=known_roles), refusal=r"no row can be used: the role .* is none of"),
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

"""Errors of Axolotl where we make rows, each with the config and the data that it needs; named as in docs/differences.md."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from tests.oracle.case import Made
from tests.oracle.context import Context, messages_of


class Stop(NamedTuple):
    """What Axolotl says, and what else must hold for it to be this error."""

    pattern: str
    holds: Callable[[Context], bool]


def _has_null(context: Context) -> bool:
    return any(_holds_null(row) for row in context.rows.values())


def _holds_null(row: Any) -> bool:
    messages = [message for message in messages_of(row) if "role" in message or "from" in message]
    nulls = any(message.get("content", message.get("value")) is None for message in messages)
    return bool(messages) and (nulls or ("system" in row and row["system"] is None))


def _has_calls(context: Context) -> bool:
    return any(message.get("tool_calls") for row in context.rows.values() for message in messages_of(row))


def _maps_the_role(context: Context, role: str) -> bool:
    return context.is_rl and any(role in names for entry in context.entries() for names in (entry.get("roles") or {}).values())


def _has_no_mask(context: Context) -> bool:
    ready = all({"input_ids", "labels"} <= row.keys() and "attention_mask" not in row for row in context.rows.values())
    return ready and all(entry.get("type") is None for entry in context.entries())


def _has_thoughts(context: Context) -> bool:
    template = str(context.config.get("chat_template"))
    return context.is_rl and template.startswith("qwen3") and context.type_is("chat_template.default", "chat_template.argilla_chat")


def _lacks_system(context: Context) -> bool:
    return bool(context.config.get("reward_model")) and all("system" not in row for row in context.rows.values())


def _tests_another_way(context: Context) -> bool:
    kinds = [[entry.get("type") for entry in context.config.get(name) or []] for name in ("datasets", "test_datasets")]
    return context.is_rl and bool(kinds[1]) and kinds[0][:1] != kinds[1][:1]


def _leads_with_system(context: Context) -> bool:
    return any((row.get("chosen") or [{}])[0].get("role") == "system" for row in context.rows.values())


STOPS: dict[str, Stop] = {
    "null-is-nothing": Stop(r"can only concatenate str \(not \"NoneType\"\)|has no attribute 'content'", _has_null),
    "calls-alternate": Stop(r"conversation roles must alternate", _has_calls),
    "phi-4-by-name": Stop(r"chat_template\.str-enum\[ChatTemplate\]", lambda context: context.config.get("chat_template") == "phi_4"),
    "unused-columns": Stop(r"Set `remove_unused_columns: False` when using", lambda context: context.is_rl),
    "ready-rows-without-a-mask": Stop(r"'NoneType' object has no attribute 'startswith'", _has_no_mask),
    "answers-that-begin-with-a-thought": Stop(r"Prompt, chosen and rejected keys are required", _has_thoughts),
    "pairs-with-a-system-turn": Stop(r"invalid number of turns", _leads_with_system),
    "rewards-without-a-system-column": Stop(r"^'system'$", _lacks_system),
    "test-sets-of-their-own-type": Stop(r"Failed to load dataset transform function for type", _tests_another_way),
    "roles-of-preferences": Stop(r"^'[^']+'$", lambda context: False),  # see stop_of: the role is the whole message
}


def stop_of(error: str, ours: Made, context: Context) -> str | None:
    """The name of an error that does not concern us, if we made something of the rows."""
    made = {row.number for row in ours.rows}
    if not made or not made <= set(context.rows) or 2 * len(made) < len(context.rows):  # some may be too long, or train nothing
        return None
    if re.fullmatch(r"'[^']+'", error) and _maps_the_role(context, error.strip("'")):
        return "roles-of-preferences"
    return next((name for name, stop in STOPS.items() if re.search(stop.pattern, error) and stop.holds(context)), None)

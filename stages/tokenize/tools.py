"""Tools, tool calls and other values of a row that are more than text. Files with a schema give them as JSON text, or with nulls."""

from __future__ import annotations

import json
from typing import Any

from stages.tokenize.example import BadRow
from stages.tokenize.rows import TOO_DEEP, is_too_deep


def tools_in(value: Any, column: str) -> list[Any] | None:
    """The tools of a row's ``column``; ``None`` where it has none."""
    if isinstance(value, str):
        value = parsed(value, f"column {column!r}") if value.strip() else None
    if value is not None and not isinstance(value, list):
        raise BadRow(f"column {column!r} is no list of tools")
    return [_decoded(tool, "parameters") for tool in without_nulls(value)] if value else None


def tool_calls_in(value: Any) -> list[Any]:
    """The tool calls of a message."""
    calls = parsed(value, "tool_calls") if isinstance(value, str) else value
    if not isinstance(calls, list):
        raise BadRow("tool_calls of a message is no list")
    return [_decoded(call, "arguments") for call in calls]


def _decoded(item: Any, key: str) -> Any:
    """A tool or a call whose ``key`` (parameters, arguments) is given as JSON text, as Arrow files often need it."""
    function = item.get("function") if isinstance(item, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get(key), str):
        return item
    return item | {"function": function | {key: parsed(function[key], f"{key} of tool {function.get('name')!r}")}}


def without_nulls(value: Any) -> Any:
    """Keys with null are those that other rows have: files with a schema fill them in."""
    if isinstance(value, dict):
        return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [without_nulls(inner) for inner in value] if isinstance(value, list) else value


def parsed(text: str, what: str) -> Any:
    """What JSON text says. ``what`` names it in the reason of a :class:`BadRow`."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise BadRow(f"{what} is text that is not JSON") from None
    if is_too_deep(value):
        raise BadRow(f"{what} is {TOO_DEEP}")
    return value

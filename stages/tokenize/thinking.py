"""Reasoning that stands inside an answer between tags, taken out of it."""

from __future__ import annotations

from typing import Any

_REASONING = (("<think>", "</think>"), ("<reasoning>", "</reasoning>"), ("<|begin_of_thought|>", "<|end_of_thought|>"))
_SOLUTION = ("<|begin_of_solution|>", "<|end_of_solution|>")


def split_thinking(message: dict[str, Any], key: str) -> None:
    """Move reasoning at the beginning of the content to ``key``. Slices keep where they come from, so nothing else changes."""
    content = message["content"].lstrip()
    for begin, end in _REASONING:
        close = content.find(end)
        if content.startswith(begin) and close >= 0:
            message[key] = content[len(begin) : close].strip()
            message["content"] = _solution(content[close + len(end) :].lstrip())
            return


def _solution(answer: Any) -> Any:
    begin, end = _SOLUTION
    inside = answer.rstrip()
    return inside[len(begin) : -len(end)].strip() if inside.startswith(begin) and inside.endswith(end) else answer

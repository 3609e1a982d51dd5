"""Answers that a model generated while it learned from them (GRPO), as a table: how they change over the run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.eval.tables import Table

FILE = "completions.jsonl"
_LONGEST = 300
"""Characters of a prompt or an answer; the file has all of them."""


def answers_table(trained: Path) -> Table | None:
    """The best and the worst answer of each step that was kept; ``None`` where the model was taught by given answers."""
    path = trained / FILE
    if not path.exists():
        return None
    by_step: dict[int, list[dict[str, Any]]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        found = json.loads(line)
        by_step.setdefault(found["step"], []).append(found)
    rows = []
    for step, lines in by_step.items():
        ranked = sorted(lines, key=lambda line: -(line["advantage"] or 0.0))
        rows += [_row(step, ranked[place]) for place in dict.fromkeys((0, len(ranked) - 1))]
    return Table(["step", "prompt", "answer", "rewards", "advantage"], rows)


def _row(step: int, line: Mapping[str, Any]) -> list[Any]:
    rewards = ", ".join(f"{name} {'none' if score is None else f'{score:.3g}'}" for name, score in line["rewards"].items())
    advantage = "none" if line["advantage"] is None else f"{line['advantage']:.2f}"
    return [step, _shown(line["prompt"]), _shown(line["completion"]), rewards, advantage]


def _shown(text: str | list[Mapping[str, Any]]) -> str:
    """Of messages the last."""
    whole = text if isinstance(text, str) else str(text[-1]["content"])
    return whole if len(whole) <= _LONGEST else f"{whole[:_LONGEST]}…"

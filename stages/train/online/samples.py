"""Answers that are kept to be looked at: those to one prompt, at a few steps that are spread over the run."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

FILE = "completions.jsonl"
_MOST = 16
"""Steps of which answers are kept: enough to see what is learned, few enough to be read."""


class Samples:
    """Lines of ``completions.jsonl``: step, prompt, completion, rewards by name, advantage. The same after a resume as without one."""

    def __init__(self, steps: int, updates: int, answers: int) -> None:
        """Of ``steps`` steps every ``updates``-th generates; ``answers`` are those to a prompt."""
        batches = math.ceil(steps / updates)
        self._chosen = {round(place * (batches - 1) / max(1, min(_MOST, batches) - 1)) for place in range(min(_MOST, batches))}
        self._updates, self._answers = updates, answers
        self._lines: list[str] = []

    def note(self, step: int, logs: Mapping[str, Any]) -> None:
        """What TRL logged of the answers that ``step`` (from 0) generated, of all processes."""
        if step // self._updates in self._chosen:
            found = list(answers_in(logs))[: self._answers]
            self._lines += [json.dumps({"step": step + 1, **line}, ensure_ascii=False) for line in found]

    def save(self, path: Path) -> None:
        """Write the lines."""
        path.write_text("".join(f"{line}\n" for line in self._lines), encoding="utf-8")

    def load(self, path: Path) -> None:
        """Go on from what :meth:`save` wrote."""
        self._lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n") if path.stat().st_size else []


def answers_in(logs: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """prompt, completion, rewards and advantage of each answer in TRL's log of the last batch."""
    rewards: Mapping[str, Sequence[float]] = logs["rewards"]
    rows = zip(logs["prompt"], logs["completion"], logs["advantages"], strict=True)
    for number, (prompt, completion, advantage) in enumerate(rows):
        scores = {name: _number(values[number]) for name, values in rewards.items()}
        yield {"prompt": prompt, "completion": _text(completion), "rewards": scores, "advantage": _number(advantage)}


def _text(completion: Any) -> Any:
    """An answer to messages is a list of one message."""
    return completion if isinstance(completion, str) else completion[0]["content"]


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(f"{value:.6g}")

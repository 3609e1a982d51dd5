"""What a step's answers, and those to held-out prompts, are measured to be."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

_NAMES = {
    "reward": "reward",
    "reward_std": "reward_std",
    "kl": "kl",
    "entropy": "entropy",
    "completions/mean_length": "completion_length",
    "completions/clipped_ratio": "cut_off",
}
"""Columns by TRL's names: mean and standard deviation of the weighted rewards, divergence from the reference, entropy per token,
tokens per answer, share of answers that hit the length limit."""

_OF_ANSWERS = ("reward", "reward_std", "completion_length", "cut_off")
"""Those that are known when answers are generated, and hold for all steps that learn from these."""


class Measures:
    """Numbers for the log.

    Attributes:
        batch: tokens of the answers that are learned from, with their prompts, and trained tokens among them.
    """

    def __init__(self, judges: Sequence[str]) -> None:
        self._names = _NAMES | {f"rewards/{name}/mean": f"rewards/{name}" for name in judges}
        self._kept = frozenset((*_OF_ANSWERS, *(f"rewards/{name}" for name in judges)))
        self.batch = (0, 0)
        self._sums: dict[str, list[float]] = {}

    def generated(self, tokens: int, trained: int) -> None:
        """Answers were generated, of all processes."""
        self.batch = (tokens, trained)

    def of_step(self, said: Mapping[str, Sequence[float]], history: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Of the step that ends. ``tokens`` and ``trained_tokens`` count every pass over one since the run began."""
        last: Mapping[str, Any] = next((entry for entry in reversed(history) if "tokens" in entry), {})
        known = {name: last[name] for name in last if name in self._kept}
        tokens = {name: int(last.get(name, 0)) + count for name, count in zip(("tokens", "trained_tokens"), self.batch, strict=True)}
        return known | self._means(said) | tokens

    def measured(self, said: dict[str, list[float]], prompts: int) -> None:
        """A batch of held-out prompts was answered; what TRL said of it is taken."""
        for name, value in self._means(said).items():
            total = self._sums.setdefault(name, [0.0, 0.0])
            total[0] += value * prompts
            total[1] += prompts
        said.clear()

    def held_out(self) -> dict[str, float]:
        """Means over all held-out prompts."""
        found = {f"eval_{name}": total / prompts for name, (total, prompts) in self._sums.items()}
        self._sums = {}
        return found

    def _means(self, said: Mapping[str, Sequence[float]]) -> dict[str, float]:
        """Over micro-batches. What no answer has a value of is left out."""
        values = {name: [value for value in said.get(of, ()) if not math.isnan(value)] for of, name in self._names.items()}
        return {name: math.fsum(found) / len(found) for name, found in values.items() if found}

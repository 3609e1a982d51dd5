"""Which evaluation was the best, and for how long none was better: computed from the log, so that a resume needs no counter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.generation import generates
from pipeline.measured import is_better_greater
from pipeline.options.views import TrainOptions

History = Iterable[Mapping[str, Any]]
"""transformers' ``log_history``: entries of steps and of evaluations, in order."""


@dataclass(frozen=True)
class Criterion:
    """What better means. Of equal evaluations the earlier is the better one."""

    metric: str
    greater: bool

    def best(self, history: History, counts: Callable[[int], bool] = lambda step: True) -> int | None:
        """Step of the best evaluation among those whose step ``counts``; ``None`` before the first. Step 0 never counts."""
        found: tuple[int, float] | None = None
        for step, value in self._values(history):
            if counts(step) and value == value and (found is None or (value > found[1] if self.greater else value < found[1])):
                found = step, value
        return None if found is None else found[0]

    def without_improvement(self, history: History) -> int:
        """Evaluations since the best one."""
        entries = list(history)
        best = self.best(entries) or 0
        return sum(step > best for step, _ in self._values(entries))

    def _values(self, history: History) -> Iterator[tuple[int, float]]:
        return ((entry["step"], entry[self.metric]) for entry in history if self.metric in entry and entry["step"] > 0)


def criterion_of(options: TrainOptions) -> Criterion:
    """By ``metric_for_best_model`` and ``greater_is_better``; by default the smallest loss, or for generated answers the largest reward."""
    usual = "reward" if generates(options) else "loss"
    metric = f"eval_{(options.metric_for_best_model or usual).removeprefix('eval_')}"
    greater = is_better_greater(metric) if options.greater_is_better is None else options.greater_is_better
    return Criterion(metric, greater)

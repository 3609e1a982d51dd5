"""After which steps a run saves and evaluates: pure functions of the step, so that a resumed run does it at the same ones."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from pipeline.options.views import TrainOptions
from pipeline.steps import Steps


@dataclass(frozen=True)
class Cadence:
    """Steps between two events, as an exact fraction so that ``n`` events spread evenly over an epoch; ``None``: never."""

    interval: Fraction | None
    last: int

    def due(self, step: int) -> bool:
        """Whether the event happens after ``step``: where a multiple of the interval was reached, and at the end of the run."""
        if self.interval is None:
            return False
        return step == self.last or step // self.interval > (step - 1) // self.interval


def save_cadence(options: TrainOptions, steps: Steps) -> Cadence:
    """When checkpoints are written; ``save_strategy: best`` follows evaluations instead, and `no` nothing."""
    unset = options.save_strategy in (None, "epoch")
    return Cadence(_interval(options.save_steps, options.saves_per_epoch, unset, steps), steps.steps)


def evaluation_cadence(options: TrainOptions, steps: Steps) -> Cadence:
    """When the held-out rows are measured."""
    return Cadence(_interval(options.eval_steps, options.evals_per_epoch, options.eval_strategy == "epoch", steps), steps.steps)


def _interval(every: int | float | None, per_epoch: int | None, every_epoch: bool, steps: Steps) -> Fraction | None:
    if every is not None:
        return Fraction(str(every)) * (steps.steps if every < 1 else 1)
    if per_epoch:
        return Fraction(steps.steps_per_epoch, per_epoch)
    return Fraction(steps.steps_per_epoch) if every_epoch else None

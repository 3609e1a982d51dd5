"""How many steps a run has, and the defaults that follow from that number."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from pipeline.options.views import TrainOptions
from pipeline.steps import Steps, count_steps
from stages.train.loop.cadence import Cadence, evaluation_cadence, save_cadence


@dataclass(frozen=True)
class Schedule(Steps):
    """All in optimizer steps, except ``bins_per_step`` (bins of the whole global batch)."""

    logging_steps: int
    warmup_steps: int
    saves: Cadence
    evaluations: Cadence
    saves_best: bool

    def keeps(self, step: int) -> bool:
        """Whether a checkpoint of ``step`` may be the best one: those on request may not, so that a stop changes nothing."""
        return self.saves.due(step) or self.saves_best


def plan_schedule(options: TrainOptions, bins: int, world_size: int) -> Schedule:
    """The steps of a run over ``bins`` bins on ``world_size`` processes; see :func:`pipeline.steps.count_steps`."""
    counted = count_steps(options, bins, world_size, drop_last=options.dataloader_drop_last)
    return Schedule(
        **asdict(counted),
        logging_steps=options.logging_steps or max(1, min(int(0.005 * counted.steps), 10)),
        warmup_steps=_warmup_steps(options, counted.steps),
        saves=save_cadence(options, counted),
        evaluations=evaluation_cadence(options, counted),
        saves_best=options.save_strategy == "best",
    )


def _warmup_steps(options: TrainOptions, steps: int) -> int:
    if options.warmup_steps is not None:
        return options.warmup_steps
    if options.warmup_ratio is not None:
        return math.ceil(options.warmup_ratio * steps)
    default = min(int(0.03 * steps), 100)
    return 2 if default == 1 else default  # Axolotl's default too: a warm-up of one step would be none

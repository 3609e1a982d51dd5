"""How many steps a run has, and the defaults that follow from that number."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipeline.options.views import TrainOptions


@dataclass(frozen=True)
class Schedule:
    """All in optimizer steps, except ``bins_per_step`` (bins of the whole global batch)."""

    bins_per_step: int
    steps_per_epoch: int
    steps: int
    logging_steps: int
    save_steps: int
    warmup_steps: int

    @property
    def epochs(self) -> float:
        """Passes over the data that ``steps`` make."""
        return self.steps / self.steps_per_epoch


def plan_schedule(options: TrainOptions, bins: int, world_size: int) -> Schedule:
    """Count the steps of a run over ``bins`` bins on ``world_size`` processes.

    The last step of an epoch takes what is left: no bin is dropped and none is seen twice in an epoch.
    """
    micro_batches = math.ceil(bins / (options.micro_batch_size * world_size))
    steps_per_epoch = math.ceil(micro_batches / options.gradient_accumulation_steps)
    steps = options.max_steps or math.ceil(options.num_epochs * steps_per_epoch)
    return Schedule(
        bins_per_step=options.micro_batch_size * world_size * options.gradient_accumulation_steps,
        steps_per_epoch=steps_per_epoch,
        steps=steps,
        logging_steps=options.logging_steps or max(1, min(int(0.005 * steps), 10)),
        save_steps=options.save_steps or steps_per_epoch,
        warmup_steps=_warmup_steps(options, steps),
    )


def _warmup_steps(options: TrainOptions, steps: int) -> int:
    if options.warmup_steps is not None:
        return options.warmup_steps
    if options.warmup_ratio is not None:
        return math.ceil(options.warmup_ratio * steps)
    default = min(int(0.03 * steps), 100)
    return 2 if default == 1 else default  # Axolotl's default too: a warm-up of one step would be none

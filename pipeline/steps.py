"""How many optimizer steps bins make, and which bins a step takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from pipeline.errors import RegrowError
from pipeline.generation import generates, prompts_at_once, trl_of
from pipeline.options.batches import Batches
from pipeline.options.views import TrainOptions


@dataclass(frozen=True)
class Steps:
    """Counts of a run.

    Attributes:
        bins_per_step: bins of the whole global batch; the last step of an epoch takes what is left.
        updates: optimizer steps that take the same bins one after the other: 1, but for GRPO with num_iterations.
        steps_per_epoch: optimizer steps.
        steps: optimizer steps of the whole run.
    """

    bins_per_step: int
    updates: int
    steps_per_epoch: int
    steps: int

    @property
    def epochs(self) -> float:
        """Passes over the data that ``steps`` make."""
        return self.steps / self.steps_per_epoch

    def bins_after(self, steps: int) -> int:
        """Bins that the first ``steps`` steps of an epoch take, where there are so many."""
        return math.ceil(steps / self.updates) * self.bins_per_step


def accumulation_steps(options: Batches, world_size: int) -> int:
    """Forward passes of each process per optimizer step.

    Raises:
        RegrowError: a ``batch_size`` that the processes cannot share out evenly.
    """
    if options.batch_size is None:
        return options.gradient_accumulation_steps
    together = options.micro_batch_size * world_size
    if options.batch_size % together:
        raise RegrowError(
            f"batch_size {options.batch_size} is not a multiple of {together} rows, which {world_size} processes with "
            f"micro_batch_size {options.micro_batch_size} take at once.",
            f"Set batch_size: {max(1, options.batch_size // together) * together}, or start another number of processes.",
        )
    return options.batch_size // together


def count_steps(options: TrainOptions, bins: int, world_size: int, *, drop_last: bool = False) -> Steps:
    """Count the steps of a run over ``bins`` bins on ``world_size`` processes.

    The last step of an epoch takes what is left: no bin is dropped and none is seen twice in an epoch. With ``drop_last`` bins
    that do not fill a micro-batch of every process are left out.

    Raises:
        RegrowError: nothing would be left.
    """
    if generates(options):
        return _count_answers(options, bins, world_size)
    together = options.micro_batch_size * world_size
    micro_batches = bins // together if drop_last else math.ceil(bins / together)
    if not micro_batches:
        raise RegrowError(
            f"dataloader_drop_last: true leaves out all {bins} bins: a micro-batch of {world_size} processes takes {together}.",
            "Set a smaller micro_batch_size, or dataloader_drop_last: false.",
        )
    steps_per_epoch = math.ceil(micro_batches / accumulation_steps(options, world_size))
    bins_per_step = options.micro_batch_size * world_size * accumulation_steps(options, world_size)
    return Steps(bins_per_step, 1, steps_per_epoch, _all_steps(options, steps_per_epoch))


def _all_steps(options: Batches, steps_per_epoch: int) -> int:
    # In decimals: in binary, 1.1 epochs of 10 steps are a trace more than 11.
    return options.max_steps or math.ceil(Fraction(str(options.num_epochs)) * steps_per_epoch)


def _count_answers(options: TrainOptions, bins: int, world_size: int) -> Steps:
    """A batch of answers is whole: prompts that do not fill one are left out of an epoch, others in each."""
    answers = options.micro_batch_size * world_size * accumulation_steps(options, world_size)
    prompts, updates = prompts_at_once(options, answers), trl_of(options).num_iterations
    if bins < prompts:
        raise RegrowError(
            f"There are {bins} prompts, and a step takes {prompts} of them ({answers} answers, trl.num_generations of them to each).",
            "Set a smaller micro_batch_size or gradient_accumulation_steps, or more trl.num_generations.",
        )
    steps_per_epoch = bins // prompts * updates
    return Steps(prompts, updates, steps_per_epoch, _all_steps(options, steps_per_epoch))

"""Learning-rate schedules, restarts and ReLoRA. Read by train."""

from __future__ import annotations

from typing import Any, Literal

from pipeline.options.schema import LARGEST, Group, option

SchedulerName = Literal[
    "linear", "cosine", "constant", "constant_with_warmup", "polynomial", "inverse_sqrt", "cosine_with_restarts", "cosine_with_min_lr",
    "cosine_warmup_with_min_lr", "warmup_stable_decay", "reduce_lr_on_plateau", "greedy", "one_cycle", "rex",
]  # fmt: skip

MEASURING = ("reduce_lr_on_plateau", "greedy")
"""Schedules that follow what evaluations measure, instead of the step."""


class Schedule(Group):
    """How the learning rate goes up and down."""

    lr_scheduler: SchedulerName = option("cosine", "Learning-rate schedule, by its name in transformers; one_cycle and rex besides.")
    warmup_steps: int | None = option(None, "Steps of linear warm-up; default 3 % of the steps, at most 100.", ge=0, le=LARGEST)
    warmup_ratio: float | None = option(None, "Share of the steps used for warm-up.", ge=0, lt=1)
    lr_scheduler_kwargs: dict[str, Any] | None = option(None, "Further arguments of the schedule, by their names in transformers or torch.")
    lr_quadratic_warmup: bool = option(False, "Warm up with the square of the progress; cosine only.")
    cosine_min_lr_ratio: float | None = option(
        None, "Lowest learning rate as a share of the peak: of cosine and rex, and at jagged restarts.", ge=0, le=1
    )
    cosine_constant_lr_ratio: float | None = option(None, "Share of the steps after which cosine keeps the lowest rate.", gt=0, le=1)
    lr_div_factor: float | None = option(None, "one_cycle: the peak divided by this is the rate it starts at; default 25.", ge=1)


class Restarts(Group):
    """Jagged restarts, and ReLoRA (arXiv 2307.05695), which merges the adapter at each of them."""

    jagged_restart_steps: int | None = option(None, "Steps between restarts of the schedule.", ge=1, le=LARGEST)
    jagged_restart_warmup_steps: int | None = option(None, "Steps of warm-up after a restart; default 10.", ge=0, le=LARGEST)
    jagged_restart_anneal_steps: int | None = option(
        None, "Steps of decay before a restart; default 1, which is none: the restart itself has the lowest rate.", ge=0, le=LARGEST
    )
    relora: bool = option(False, "ReLoRA: merge the adapter at each restart and begin a new one; gives a whole model.")
    relora_prune_ratio: float = option(0.9, "Share of the optimizer's state that is cut at a restart, smallest values first.", ge=0, le=1)
    relora_cpu_offload: bool = option(False, "Merge on the CPU.")

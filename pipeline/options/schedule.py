"""Learning-rate schedules, restarts and ReLoRA. Read by train."""

from __future__ import annotations

from typing import Any, Literal

from pipeline.options.schema import LARGEST, Group, not_yet, option, refused

SchedulerName = Literal["linear", "cosine", "constant", "constant_with_warmup", "polynomial", "inverse_sqrt"]

SCHEDULES_TO_COME = (
    *("cosine_with_restarts", "cosine_with_min_lr", "cosine_warmup_with_min_lr", "reduce_lr_on_plateau", "warmup_stable_decay", "greedy"),
    *("one_cycle", "rex"),
)
"""Other names in transformers, and those Axolotl adds."""


class Schedule(Group):
    """How the learning rate goes up and down."""

    lr_scheduler: SchedulerName = option("cosine", "Learning-rate schedule, by its name in transformers.", later=SCHEDULES_TO_COME)
    warmup_steps: int | None = option(None, "Steps of linear warm-up; default 3 % of the steps, at most 100.", ge=0, le=LARGEST)
    warmup_ratio: float | None = option(None, "Share of the steps used for warm-up.", ge=0, lt=1)
    lr_scheduler_kwargs: dict[str, Any] | None = not_yet("Further arguments of the schedule.", idle=({},))
    lr_quadratic_warmup: bool | None = not_yet("Warm up with the square of the progress; cosine only.")
    cosine_min_lr_ratio: float | None = not_yet("Lowest learning rate as a share of the peak.", idle=(0,), ge=0, le=1)
    cosine_constant_lr_ratio: float | None = not_yet("Share of the steps after which the lowest rate is kept.", idle=(), ge=0, le=1)
    lr_div_factor: float | None = refused(
        "In Axolotl: without effect.", "no schedule reads it", "set the lowest rate with cosine_min_lr_ratio"
    )


class Restarts(Group):
    """Jagged restarts, and ReLoRA (arXiv 2307.05695), which merges the adapter at each of them."""

    jagged_restart_steps: int | None = not_yet("Steps between restarts of the schedule.", idle=(), ge=1)
    jagged_restart_warmup_steps: int | None = not_yet("Steps of warm-up after a restart; default 10.", idle=(), ge=0)
    jagged_restart_anneal_steps: int | None = not_yet("Steps of decay before a restart; default 1.", idle=(), ge=0)
    relora: bool | None = not_yet("Merge the adapter into the weights at each restart and begin a new one.")
    relora_prune_ratio: float | None = not_yet("Share of the optimizer's state that is cut at a restart; default 0.9.", idle=(), ge=0, le=1)
    relora_cpu_offload: bool | None = not_yet("Merge on the CPU.", execution=True)

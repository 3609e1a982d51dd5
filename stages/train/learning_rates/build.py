"""The schedule that the options name. Every group of the optimizer goes the same way, from a peak of its own."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR
from transformers import get_scheduler

from pipeline.errors import RegrowError
from pipeline.options.schedule import MEASURING
from pipeline.options.views import TrainOptions
from stages.train.learning_rates.factors import cosine, jagged, rex

Factor = Callable[[int], float]

JAGGED_WARMUP, JAGGED_ANNEAL, JAGGED_FLOOR = 10, 1, 0.001


def build_scheduler(optimizer: Optimizer, options: TrainOptions, warmup: int, steps: int) -> Any:
    """The schedule of a run of ``steps`` optimizer steps, the first ``warmup`` of which lead up to the peak.

    Raises:
        RegrowError: it does not take its arguments.
    """
    kwargs = dict(options.lr_scheduler_kwargs or {})
    try:
        return _scheduler(optimizer, options, warmup, steps, kwargs)
    except (TypeError, ValueError) as error:
        raise RegrowError(
            f"lr_scheduler: {options.lr_scheduler} does not take its arguments: {error}", "Check lr_scheduler_kwargs."
        ) from error


def _scheduler(optimizer: Optimizer, options: TrainOptions, warmup: int, steps: int, kwargs: dict[str, Any]) -> Any:
    restarts = _restarts(options)
    if options.lr_scheduler == "one_cycle":
        return _one_cycle(optimizer, options, warmup, steps, kwargs, restarts)
    own = own_factor(options, warmup, steps)
    if own is not None:
        return LambdaLR(optimizer, _product(own, restarts))
    plain = get_scheduler(options.lr_scheduler, optimizer, warmup, steps, kwargs)
    if restarts is None or options.lr_scheduler in MEASURING:
        return plain
    return LambdaLR(optimizer, _product(plain.lr_lambdas[0], restarts))


def own_factor(options: TrainOptions, warmup: int, steps: int) -> Factor | None:
    """The schedules that transformers does not have."""
    floor = options.cosine_min_lr_ratio or 0.0
    if options.lr_scheduler == "rex":
        return partial(rex, warmup=warmup, steps=steps, floor=floor)
    ends, power = options.cosine_constant_lr_ratio, 2 if options.lr_quadratic_warmup else 1
    if options.lr_scheduler == "cosine" and (floor or ends is not None or power > 1):
        end = steps if ends is None else int(steps * ends)
        return partial(cosine, warmup=warmup, end=end, floor=floor, power=power)
    return None


def _restarts(options: TrainOptions) -> Factor | None:
    if options.jagged_restart_steps is None:
        return None
    return partial(
        jagged,
        every=options.jagged_restart_steps,
        warmup=_either(options.jagged_restart_warmup_steps, JAGGED_WARMUP),
        anneal=_either(options.jagged_restart_anneal_steps, JAGGED_ANNEAL),
        floor=options.cosine_min_lr_ratio or JAGGED_FLOOR,
    )


def _either(value: int | None, default: int) -> int:
    return default if value is None else value


def _product(factor: Factor, restarts: Factor | None) -> Factor:
    return factor if restarts is None else lambda step: factor(step) * restarts(step)


def _one_cycle(
    optimizer: Optimizer, options: TrainOptions, warmup: int, steps: int, kwargs: dict[str, Any], restarts: Factor | None
) -> LRScheduler:
    """torch's, which cycles momentum too where all groups have one. The warm-up is its rising part."""

    class OneCycle(OneCycleLR):
        def get_lr(self) -> list[float | torch.Tensor]:
            if self.last_epoch >= steps:  # after the last step, where the part that falls may have no length to divide by
                return [group["lr"] for group in optimizer.param_groups]
            rates = super().get_lr()
            return rates if restarts is None else [rate * restarts(self.last_epoch) for rate in rates]

    if warmup > steps:
        raise RegrowError(
            f"lr_scheduler: one_cycle rises for the {warmup} steps of the warm-up, and the run has {steps}.",
            f"Set warmup_steps: {steps // 3}, or train longer.",
        )
    groups = optimizer.param_groups
    cycles = all("betas" in group for group in groups) or all(group.get("momentum") for group in groups)
    settings = {"pct_start": warmup / steps, "cycle_momentum": cycles} | kwargs
    if options.lr_div_factor is not None:
        settings["div_factor"] = options.lr_div_factor
    if math.isclose(settings["pct_start"] * steps, 1):
        settings["pct_start"] *= 1 - 1e-6  # torch divides by the length of the rising part less one step; a little less begins at the peak
    return OneCycle(optimizer, max_lr=[group["lr"] for group in groups], total_steps=steps, **settings)

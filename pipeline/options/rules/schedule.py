"""Rules about learning-rate schedules and their restarts."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.options.rules.broken import Broken, broken
from pipeline.options.rules.schedule_arguments import schedules_take_such_values, schedules_take_their_arguments
from pipeline.options.schedule import MEASURING
from pipeline.options.views import RecipeOptions

_OWN_WARMUP = ("schedule_free_adamw", "schedule_free_sgd")
_GREEDY_FLOOR = 1e-3


def constant_has_no_warmup(options: RecipeOptions) -> Iterator[Broken]:
    """transformers' constant schedule starts at the peak, and so do those that follow evaluations."""
    for key in ("warmup_steps", "warmup_ratio"):
        if not getattr(options, key):
            continue
        if options.lr_scheduler == "constant" and options.optimizer not in _OWN_WARMUP:
            yield broken(f"{key} lr_scheduler", "lr_scheduler: constant has no warm-up", "set lr_scheduler: constant_with_warmup")
        if options.lr_scheduler in MEASURING:
            yield broken(f"{key} lr_scheduler", f"lr_scheduler: {options.lr_scheduler} starts at the peak", "remove it")


def floors_belong_to_cosine(options: RecipeOptions) -> Iterator[Broken]:
    """Other schedules have no floor and no quadratic warm-up."""
    floored = options.lr_scheduler == "rex" or options.jagged_restart_steps is not None
    for key in ("cosine_min_lr_ratio", "cosine_constant_lr_ratio", "lr_quadratic_warmup"):
        if getattr(options, key) and options.lr_scheduler != "cosine" and not (key == "cosine_min_lr_ratio" and floored):
            yield broken(f"{key} lr_scheduler", f"lr_scheduler is {options.lr_scheduler}", "write `lr_scheduler: cosine`, or remove it")
        if getattr(options, key) and options.lr_scheduler == "cosine" and options.lr_scheduler_kwargs:
            yield broken(f"lr_scheduler_kwargs {key}", f"{key} is set too, which goes down half a cosine", "remove one of them")
    if options.cosine_constant_lr_ratio and options.cosine_min_lr_ratio is None:
        yield broken("cosine_constant_lr_ratio cosine_min_lr_ratio", "cosine_min_lr_ratio is not set", "add it, for example 0.1")


def measuring_schedules_evaluate(options: RecipeOptions) -> Iterator[Broken]:
    """What follows evaluations needs some."""
    if options.lr_scheduler not in MEASURING:
        return
    if options.eval_steps is None and not options.evals_per_epoch and options.eval_strategy not in ("steps", "epoch"):
        wrong = f"{options.lr_scheduler} follows what evaluations measure, and there are none while training"
        yield broken("lr_scheduler eval_steps", wrong, "add eval_steps or evals_per_epoch")
    if options.jagged_restart_steps is not None:
        yield broken(
            "jagged_restart_steps lr_scheduler", f"{options.lr_scheduler} follows evaluations, and restarts steps", "remove one of them"
        )


def greedy_stays_low(options: RecipeOptions) -> Iterator[Broken]:
    """The least rate of the greedy schedule is, unless given, one that would ruin a language model."""
    least = (options.lr_scheduler_kwargs or {}).get("min_lr", _GREEDY_FLOOR)
    if options.lr_scheduler == "greedy" and isinstance(least, (int, float)) and least > options.learning_rate:
        wrong = f"its least rate is {least:g}, above learning_rate {options.learning_rate:g}"
        yield broken("lr_scheduler lr_scheduler_kwargs", wrong, f"add `lr_scheduler_kwargs: {{min_lr: {options.learning_rate / 10:g}}}`")


def divisors_belong_to_one_cycle(options: RecipeOptions) -> Iterator[Broken]:
    """Where one_cycle starts."""
    if options.lr_div_factor is None:
        return
    if options.lr_scheduler != "one_cycle":
        wrong = f"lr_scheduler is {options.lr_scheduler}"
        yield broken("lr_div_factor lr_scheduler", wrong, "write `lr_scheduler: one_cycle`, or remove it")
    if "div_factor" in (options.lr_scheduler_kwargs or {}):
        yield broken("lr_div_factor lr_scheduler_kwargs", "lr_scheduler_kwargs has div_factor, which is the same", "remove one of them")


def restarts_fit(options: RecipeOptions) -> Iterator[Broken]:
    """Between two restarts there must be room for decay and warm-up."""
    if options.jagged_restart_steps is None:
        return
    warmup = 10 if options.jagged_restart_warmup_steps is None else options.jagged_restart_warmup_steps
    around = warmup + (1 if options.jagged_restart_anneal_steps is None else options.jagged_restart_anneal_steps)
    if options.jagged_restart_steps <= around:
        wrong = f"warm-up and decay around a restart take {around} steps"
        yield broken("jagged_restart_steps jagged_restart_warmup_steps", wrong, f"write more than {around}")


SCHEDULE = (
    constant_has_no_warmup,
    floors_belong_to_cosine,
    schedules_take_their_arguments,
    schedules_take_such_values,
    measuring_schedules_evaluate,
    greedy_stays_low,
    divisors_belong_to_one_cycle,
    restarts_fit,
)

"""Rules about learning-rate schedules and their restarts."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.options.rules.broken import Broken, broken
from pipeline.options.schedule import MEASURING
from pipeline.options.views import RecipeOptions

ARGUMENTS: dict[str, tuple[str, ...]] = {
    "linear": (),
    "cosine": ("num_cycles",),
    "constant": (),
    "constant_with_warmup": (),
    "polynomial": ("lr_end", "power"),
    "inverse_sqrt": ("timescale",),
    "cosine_with_restarts": ("num_cycles",),
    "cosine_with_min_lr": ("num_cycles", "min_lr", "min_lr_rate"),
    "cosine_warmup_with_min_lr": ("num_cycles", "min_lr", "min_lr_rate", "warmup_lr_rate"),
    "warmup_stable_decay": (*("num_decay_steps", "num_stable_steps", "warmup_type", "decay_type", "min_lr_ratio", "num_cycles"),),
    "reduce_lr_on_plateau": ("mode", "factor", "patience", "threshold", "threshold_mode", "cooldown", "min_lr", "eps"),
    "greedy": (
        *("mode", "factor", "patience", "threshold", "threshold_mode", "cooldown", "warmup", "min_lr", "max_lr", "eps"),
        *("smooth", "window_size", "reset_start"),
    ),
    "one_cycle": (
        *("pct_start", "anneal_strategy", "cycle_momentum", "base_momentum", "max_momentum", "div_factor", "final_div_factor"),
        "three_phase",
    ),
    "rex": (),
}
"""What `lr_scheduler_kwargs` may hold."""

# Of these at least one is needed: schedule, arguments, an example.
_NEEDED = (
    ("warmup_stable_decay", ("num_decay_steps",), "num_decay_steps: 100"),
    ("cosine_with_min_lr", ("min_lr", "min_lr_rate"), "min_lr_rate: 0.1"),
    ("cosine_warmup_with_min_lr", ("min_lr", "min_lr_rate"), "min_lr_rate: 0.1"),
)
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


def schedules_take_their_arguments(options: RecipeOptions) -> Iterator[Broken]:
    """Each schedule has arguments of its own."""
    given, name = options.lr_scheduler_kwargs or {}, options.lr_scheduler
    for argument in given:
        if argument not in ARGUMENTS[name]:
            works = f"it has {', '.join(ARGUMENTS[name])}" if ARGUMENTS[name] else "remove it"
            yield broken(f"lr_scheduler_kwargs.{argument} lr_scheduler_kwargs", f"lr_scheduler: {name} has no such argument", works)
    for schedule, needed, example in _NEEDED:
        if name == schedule and not given.keys() & set(needed):
            wrong = f"lr_scheduler: {name} needs {' or '.join(needed)}"
            yield broken("lr_scheduler lr_scheduler_kwargs", wrong, f"add `lr_scheduler_kwargs: {{{example}}}`")


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
    measuring_schedules_evaluate,
    greedy_stays_low,
    divisors_belong_to_one_cycle,
    restarts_fit,
)

"""What `lr_scheduler_kwargs` may hold: transformers and torch look at few of the values before the step that needs them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from pipeline.options.rules.broken import Broken, broken
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
"""What each schedule takes."""

# Of these at least one is needed: schedule, arguments, an example.
_NEEDED = (
    ("warmup_stable_decay", ("num_decay_steps",), "num_decay_steps: 100"),
    ("cosine_with_min_lr", ("min_lr", "min_lr_rate"), "min_lr_rate: 0.1"),
    ("cosine_warmup_with_min_lr", ("min_lr", "min_lr_rate"), "min_lr_rate: 0.1"),
)


def _number(least: float, most: float = math.inf, *, strictly: bool = False) -> Callable[[Any], bool]:
    """Numbers from ``least`` to ``most``; ``strictly``: without these two."""

    def fits(value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            return False
        return least < value < most if strictly else least <= value <= most

    return fits


def _count(least: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= least


def _one_of(*words: str) -> tuple[str, Callable[[Any], bool]]:
    return " or ".join(words), lambda value: value in words


_POSITIVE = ("a number above 0", _number(0, strictly=True))
_AT_LEAST_0 = ("a number of at least 0", _number(0))
_SHARE = ("a number from 0 to 1", _number(0, 1))
_BELOW_1 = ("a number above 0 and below 1", _number(0, 1, strictly=True))
_STEPS = ("a whole number of at least 0", _count(0))
_STEPS_FROM_1 = ("a whole number of at least 1", _count(1))
_SWITCH = ("true or false", lambda value: isinstance(value, bool))
_SHAPE = _one_of("linear", "cosine", "1-sqrt")

VALUES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    **dict.fromkeys(("num_cycles", "lr_end", "power", "min_lr", "threshold", "eps"), _AT_LEAST_0),
    **dict.fromkeys(("max_lr", "div_factor", "final_div_factor"), _POSITIVE),
    **dict.fromkeys(("min_lr_rate", "min_lr_ratio", "warmup_lr_rate", "pct_start", "base_momentum", "max_momentum"), _SHARE),
    **dict.fromkeys(("num_decay_steps", "num_stable_steps", "patience", "cooldown", "warmup", "reset_start"), _STEPS),
    **dict.fromkeys(("timescale", "window_size"), _STEPS_FROM_1),
    **dict.fromkeys(("smooth", "cycle_momentum", "three_phase"), _SWITCH),
    **dict.fromkeys(("warmup_type", "decay_type"), _SHAPE),
    "factor": _BELOW_1,
    "mode": _one_of("min", "max"),
    "threshold_mode": _one_of("rel", "abs"),
    "anneal_strategy": _one_of("cos", "linear"),
}
"""What an argument may be: in words, and as a test."""


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
    if {"min_lr", "min_lr_rate"} <= given.keys():
        yield broken("lr_scheduler_kwargs.min_lr lr_scheduler_kwargs", "min_lr_rate is set too, which says the same", "remove one of them")


def schedules_take_such_values(options: RecipeOptions) -> Iterator[Broken]:
    """A number where a number is needed; no rate above the one that it goes down from."""
    given = options.lr_scheduler_kwargs or {}
    for argument in given.keys() & set(ARGUMENTS[options.lr_scheduler]):
        words, fits = VALUES[argument]
        place = f"lr_scheduler_kwargs.{argument} lr_scheduler_kwargs"
        if not fits(given[argument]):
            yield broken(place, f"not {words}", f"write {words}")
        elif argument in ("lr_end", "min_lr") and options.lr_scheduler != "greedy" and given[argument] >= options.learning_rate:
            wrong = f"the rate goes down to it, and learning_rate is {options.learning_rate:g}"
            yield broken(place, wrong, f"write a smaller rate, such as {options.learning_rate / 10:g}")

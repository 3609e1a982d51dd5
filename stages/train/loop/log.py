"""``log.csv`` and ``eval.csv``: the course of a training run, without times, the same after a resume as without one."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.generation import generates, reward_names, trl_of
from pipeline.measured import FEEDBACK, PAIRS, SCORES, evaluated, rewards
from pipeline.options.views import TrainOptions
from stages.train.data.counts import SeenTokens

_ANSWERS = ("reward", "reward_std", "entropy", "completion_length", "cut_off")
_MEASURED = frozenset((*PAIRS, *FEEDBACK, *SCORES, *_ANSWERS))


class Columns(NamedTuple):
    """Of log.csv and of eval.csv."""

    logged: tuple[str, ...]
    evaluated: tuple[str, ...]

    @property
    def main(self) -> str:
        """What an evaluation is for."""
        return self.evaluated[2]


_SCORE = re.compile(r"rewards/[^/]+")
"""What a function that scores answers gave, by its name."""


def columns_of(options: TrainOptions) -> Columns:
    """What there is to tell of a training, besides where it is and how large its steps are."""
    if generates(options):
        return _of_answers(options)
    measured = rewards(options.rl, options.reward_model)
    steps = ("step", "epoch", "loss", *measured, "learning_rate", "grad_norm", "tokens", "trained_tokens")
    return Columns(steps, ("step", "epoch", *evaluated(options.rl, options.reward_model, options.process_reward_model)))


def _of_answers(options: TrainOptions) -> Columns:
    scores = tuple(f"rewards/{name}" for name in reward_names(trl_of(options).reward_funcs or []))
    kl = () if not (trl_of(options).beta or options.rl_beta) else ("kl",)
    steps = ("step", "epoch", "loss", *_ANSWERS, *scores, *kl, "learning_rate", "grad_norm", "tokens", "trained_tokens")
    held_out = tuple(f"eval_{name}" for name in ("reward", "reward_std", "completion_length", "cut_off", *scores))
    return Columns(steps, ("step", "epoch", *held_out))


def log_lines(history: Iterable[Mapping[str, Any]], every: int, seen: SeenTokens) -> list[dict[str, int | float]]:
    """One line for every ``every`` steps and one for the last step, from entries of single steps.

    ``loss`` and measurements are means over the steps since the line before that have them; ``learning_rate`` and ``grad_norm``
    are those of the line's own step; token counts are cumulative.
    """
    steps = [entry for entry in history if "loss" in entry]
    windows = [steps[start : start + every] for start in range(0, len(steps), every)]
    return [_line(window, seen) for window in windows]


def _line(window: Sequence[Mapping[str, Any]], seen: SeenTokens) -> dict[str, int | float]:
    last = window[-1]
    tokens, trained = seen.after(last["step"])
    found = sorted({name for entry in window for name in entry if name in _MEASURED or _SCORE.fullmatch(name)})
    means = {name: _mean(window, name) for name in ("loss", *found)}
    numbers = {**means, "learning_rate": last["learning_rate"], "grad_norm": last["grad_norm"]}
    return {"step": last["step"], "epoch": last["epoch"], **numbers, "tokens": tokens, "trained_tokens": trained}


def _mean(window: Sequence[Mapping[str, Any]], name: str) -> float:
    values = [entry[name] for entry in window if name in entry]
    return math.fsum(values) / len(values)


def evaluation_lines(history: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> list[dict[str, int | float]]:
    """One line for every evaluation; step 0 is before the first step."""
    return [{name: entry[name] for name in columns if name in entry} for entry in history if columns[2] in entry]


def write_log(path: Path, lines: Iterable[Mapping[str, int | float]], columns: Sequence[str]) -> None:
    """Six significant digits for what is measured, whole counts; nothing where a step had no row to measure."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: f"{value:.6g}" if isinstance(value, float) else value for name, value in line.items()} for line in lines)

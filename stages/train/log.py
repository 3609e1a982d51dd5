"""``log.csv``: the course of a training run, without times, the same after a resume as without one."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.train.counts import SeenTokens

COLUMNS = ("step", "epoch", "loss", "learning_rate", "grad_norm", "tokens", "trained_tokens")


def log_lines(history: Iterable[Mapping[str, Any]], every: int, seen: SeenTokens) -> list[dict[str, int | float]]:
    """One line for every ``every`` steps and one for the last step, from entries of single steps.

    ``loss`` is the mean over the steps since the line before; ``learning_rate`` and ``grad_norm`` are those of the line's
    own step; token counts are cumulative.
    """
    steps = [entry for entry in history if "loss" in entry]
    windows = [steps[start : start + every] for start in range(0, len(steps), every)]
    return [_line(window, seen) for window in windows]


def _line(window: Sequence[Mapping[str, Any]], seen: SeenTokens) -> dict[str, int | float]:
    last = window[-1]
    tokens, trained = seen.after(last["step"])
    loss = math.fsum(entry["loss"] for entry in window) / len(window)
    numbers = {"loss": loss, "learning_rate": last["learning_rate"], "grad_norm": last["grad_norm"]}
    return {"step": last["step"], "epoch": last["epoch"], **numbers, "tokens": tokens, "trained_tokens": trained}


def write_log(path: Path, lines: Iterable[Mapping[str, int | float]]) -> None:
    """Six significant digits for what is measured, whole counts."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: f"{value:.6g}" if isinstance(value, float) else value for name, value in line.items()} for line in lines)

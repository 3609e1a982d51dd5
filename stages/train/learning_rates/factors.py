"""Schedules as pure functions: what the peak is multiplied by at a step, counted from 0."""

from __future__ import annotations

import math


def cosine(step: int, *, warmup: int, end: int, floor: float = 0.0, power: int = 1) -> float:
    """Up with the ``power`` of the progress until ``warmup``, down half a cosine to ``floor`` at ``end``, and ``floor`` from there on."""
    if step < warmup:
        return float((step / warmup) ** power)
    progress = min(1.0, (step - warmup) / max(1, end - warmup))
    return floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2


def rex(step: int, *, warmup: int, steps: int, floor: float = 0.0) -> float:
    """Linear warm-up, then the reflected exponential (arXiv 2107.04197): late and steep, to ``floor`` at ``steps``."""
    if step < warmup:
        return step / warmup
    left = max(0.0, 1 - (step - warmup) / max(1, steps - warmup))
    return floor + (1 - floor) * left / (0.1 + 0.9 * left)


def jagged(step: int, *, every: int, warmup: int, anneal: int, floor: float) -> float:
    """What a schedule is multiplied by around restarts at the multiples of ``every``: the first stretch starts without one.

    From ``anneal`` steps before a restart down to ``floor``, and in ``warmup`` steps back up to 1.
    """
    since, before = step % every, every - step % every
    if before < anneal:
        height = before / anneal
    elif step >= every and since < warmup:
        height = since / warmup
    else:
        height = 1.0
    return floor + (1 - floor) * height

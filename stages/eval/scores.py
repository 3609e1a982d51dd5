"""Metrics of every model from what it made of the rows: means, intervals, and each model against the base."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.errors import RegrowError
from stages.eval.held_out import HeldOut
from stages.eval.judge import Judgement
from stages.eval.statistics import mcnemar_p, percentile_interval, resample_means, wilson_interval

Scores = dict[str, Any]


def check_finite(name: str, judgement: Judgement, held_out: HeldOut) -> None:
    """Refuse a broken model.

    Raises:
        RegrowError: its loss on some row is not a number or infinite.
    """
    if np.isfinite(judgement.nll).all():
        return
    number = int(np.flatnonzero(~np.isfinite(judgement.nll))[0])
    origin = held_out.origin(held_out.rows[number])
    raise RegrowError(
        f"The {name} model's loss on {origin['file']}, row {origin['row']} is {judgement.nll[number]}: its weights are broken.",
        "If training diverged, lower learning_rate or raise warmup_steps; data/trained/log.csv shows where.",
    )


def score_models(judgements: Mapping[str, Judgement], held_out: HeldOut, seed: int) -> dict[str, Scores]:
    """Metrics by model name, rounded. The first model is the base that the others are compared with."""
    names, first = list(judgements), next(iter(judgements.values()))
    resampled = resample_means(np.stack([judgement.nll for judgement in judgements.values()]), first.tokens.astype(float), seed)
    scores = {}
    for column, (name, judgement) in enumerate(judgements.items()):
        found = _alone(judgement, held_out) | _named("loss", percentile_interval(resampled[:, column]))
        if name != names[0]:
            found["vs_base"] = _against(first, judgement, held_out, percentile_interval(resampled[:, column] - resampled[:, 0]))
        scores[name] = _rounded(found)
    return scores


def _alone(judgement: Judgement, held_out: HeldOut) -> Scores:
    rows, tokens = len(judgement.nll), int(judgement.tokens.sum())
    loss = float(judgement.nll.sum() / tokens)
    scores: Scores = {"rows": rows, "tokens": tokens, "loss": loss}
    # exp(709) is the largest that a float64 holds.
    scores |= {"perplexity": math.exp(loss) if loss < 709 else None, "token_accuracy": float(judgement.hits.sum() / tokens)}
    scores |= _proportion("exact_match", judgement.exact)
    return scores | _proportion(held_out.measure, held_out.correct(judgement.exact, judgement.choice))


def _proportion(name: str, correct: np.ndarray) -> Scores:
    count = int(correct.sum())
    return {name: count / len(correct)} | _named(name, wilson_interval(count, len(correct)))


def _against(base: Judgement, other: Judgement, held_out: HeldOut, loss_interval: tuple[float, float]) -> Scores:
    before, after = (held_out.correct(judgement.exact, judgement.choice) for judgement in (base, other))
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    change = float((other.nll.sum() - base.nll.sum()) / base.tokens.sum())
    counts = {"gained": gained, "lost": lost, "p_value": mcnemar_p(lost, gained)}
    return counts | {"loss_change": change} | _named("loss_change", loss_interval)


def _named(name: str, interval: tuple[float, float]) -> Scores:
    return {f"{name}_low": interval[0], f"{name}_high": interval[1]}


def _rounded(value: Any) -> Any:
    """Six digits behind the point; of what is smaller, such as a p-value, six significant ones."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if not isinstance(value, float):
        return value
    return round(value, 6) if abs(value) >= 1e-3 else float(f"{value:.6g}")

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
    """Metrics by model name, rounded. The first model is the base that the others are compared with.

    Each has ``sources`` as well, where the rows come from several: loss and perplexity of each source's rows.
    """
    scores = _score_rows(judgements, held_out, seed)
    by_source = held_out.by_source()
    for source, rows in by_source.items() if len(by_source) > 1 else ():
        part = {name: judgement.of_rows(rows) for name, judgement in judgements.items()}
        for name, found in _score_losses(part, seed).items():
            scores[name].setdefault("sources", {})[source] = found
    return {name: rounded(found) for name, found in scores.items()}


def _score_rows(judgements: Mapping[str, Judgement], held_out: HeldOut, seed: int) -> dict[str, Scores]:
    base = next(iter(judgements.values()))
    scores = _score_losses(judgements, seed)
    for name, judgement in judgements.items():
        scores[name] |= _alone(judgement, held_out)
        if "vs_base" in scores[name]:
            scores[name]["vs_base"] |= _against(base, judgement, held_out)
    return scores


def _score_losses(judgements: Mapping[str, Judgement], seed: int) -> dict[str, Scores]:
    """Loss (every token weighs the same) and perplexity, and the change of loss from the first model on the same rows."""
    names, base = list(judgements), next(iter(judgements.values()))
    resampled = resample_means(np.stack([judgement.nll for judgement in judgements.values()]), base.tokens.astype(float), seed)
    scores = {}
    for column, (name, judgement) in enumerate(judgements.items()):
        rows, tokens = len(judgement.nll), int(judgement.tokens.sum())
        loss = math.fsum(judgement.nll) / tokens
        # exp(709) is the largest that a float64 holds.
        found: Scores = {"rows": rows, "tokens": tokens, "loss": loss, "perplexity": math.exp(loss) if loss < 709 else None}
        found |= named("loss", percentile_interval(resampled[:, column]))
        if name != names[0]:
            change = (math.fsum(judgement.nll) - math.fsum(base.nll)) / tokens
            interval = percentile_interval(resampled[:, column] - resampled[:, 0])
            found["vs_base"] = {"loss_change": change} | named("loss_change", interval)
        scores[name] = found
    return scores


def _alone(judgement: Judgement, held_out: HeldOut) -> Scores:
    scores: Scores = {"token_accuracy": float(judgement.hits.sum() / judgement.tokens.sum())}
    scores |= proportion("exact_match", judgement.exact)
    return scores | proportion(held_out.measure, held_out.correct(judgement.exact, judgement.choice))


def proportion(name: str, correct: np.ndarray) -> Scores:
    """The share of ``correct`` (bool ``[rows]``, at least one) with its 95 % interval."""
    count = int(correct.sum())
    return {name: count / len(correct)} | named(name, wilson_interval(count, len(correct)))


def compare_rights(before: np.ndarray, after: np.ndarray) -> Scores:
    """Rows that only one of two models gets right, from bool ``[rows]`` of each, and McNemar's p."""
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    return {"gained": gained, "lost": lost, "p_value": mcnemar_p(lost, gained)}


def _against(base: Judgement, other: Judgement, held_out: HeldOut) -> Scores:
    return compare_rights(*(held_out.correct(judgement.exact, judgement.choice) for judgement in (base, other)))


def named(name: str, interval: tuple[float, float]) -> Scores:
    """The bounds of an interval of ``name``."""
    return {f"{name}_low": interval[0], f"{name}_high": interval[1]}


def rounded(value: Any) -> Any:
    """Six digits behind the point; of what is smaller, such as a p-value, six significant ones."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if not isinstance(value, float):
        return value
    return round(value, 6) if abs(value) >= 1e-3 else float(f"{value:.6g}")

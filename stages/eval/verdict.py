"""The result in one sentence and in three short answers, no better than the numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stages.eval.scores import Scores

# Below this a difference is called one; the sentence gives p wherever it decides.
_LEVEL = 0.05


def verdict(scores: Mapping[str, Scores], held_out: Mapping[str, Any], benchmark: Mapping[str, Scores] = {}) -> str:
    """Base against merged, then the quantised models. By accuracy where there are choices, by loss elsewhere.

    Args:
        scores: by model name; empty when no row is held out. Then the benchmark decides, if there is one.
        held_out: counts of the held-out rows, with ``majority_share`` where there are choices.
        benchmark: scores of the benchmark by model name, if there is one.
    """
    if not scores and not benchmark:
        return "Nothing was judged: no row is held out. Set val_set_size (or test_datasets) in params.yaml."
    if not scores:
        rows = f"on {benchmark['merged']['questions']} questions of the benchmark"
        return _by_accuracy(benchmark["base"], benchmark["merged"], rows) + _quantised(benchmark, "accuracy")
    base, merged, measure = scores["base"], scores["merged"], _measure(scores)
    rows = f"on {merged['rows']} held-out row{'s' if merged['rows'] != 1 else ''}"
    sentence = _by_accuracy(base, merged, rows) if measure == "accuracy" else _by_loss(base, merged, rows)
    return sentence + _quantised(scores, measure) + _guessing(merged, held_out)


def answer(scores: Mapping[str, Scores], benchmark: Mapping[str, Scores] = {}) -> list[tuple[str, str]]:
    """Did it get better, by how much, is it certain: three questions, each with its answer; none where nothing was judged."""
    judged = scores or benchmark
    if not judged:
        return []
    base, merged, measure = judged["base"], judged["merged"], _measure(judged)
    change = merged[measure] - base[measure]
    return [
        ("Did it get better?", _outcome(merged, change, measure)),
        ("By how much?", f"{measure} {base[measure]:.3f} → {merged[measure]:.3f} ({change:+.3f})"),
        ("Is it certain?", _certainty(merged, measure)),
    ]


def _measure(scores: Mapping[str, Scores]) -> str:
    return "accuracy" if "accuracy" in scores["base"] else "loss"


def _outcome(merged: Scores, change: float, measure: str) -> str:
    if not _is_certain(merged, measure):
        return "Not measurably"
    return "Yes" if (change > 0) == (measure == "accuracy") else "No, it got worse"


def _is_certain(merged: Scores, measure: str) -> bool:
    versus = merged["vs_base"]
    if measure == "accuracy":
        return bool(versus["p_value"] < _LEVEL)
    return not versus["loss_change_low"] <= 0 <= versus["loss_change_high"]


def _certainty(merged: Scores, measure: str) -> str:
    versus = merged["vs_base"]
    if measure == "accuracy":
        chance = f"{_p(versus)}; {versus['gained']} rows gained, {versus['lost']} lost"
        return f"Yes: {chance}" if _is_certain(merged, measure) else f"No: it may be chance, {chance}"
    interval = f"95 % interval of the change {versus['loss_change_low']:+.3f} to {versus['loss_change_high']:+.3f}"
    return f"Yes: {interval}" if _is_certain(merged, measure) else f"No: it may be chance, {interval}"


def _p(versus: Scores) -> str:
    return f"p {'< 0.0001' if (value := versus['p_value']) < 1e-4 else f'= {value:.2g}'}"


def _quantised(scores: Mapping[str, Scores], measure: str) -> str:
    quantised = [f"{name} {scores[name][measure]:.2f}" for name in scores if name not in ("base", "merged")]
    return f"; quantised {', '.join(quantised)}." if quantised else "."


def _by_accuracy(base: Scores, merged: Scores, rows: str) -> str:
    p = _p(merged["vs_base"])
    change = f"accuracy from {_interval(base, 'accuracy')} to {_interval(merged, 'accuracy')} {rows}"
    if not _is_certain(merged, "accuracy"):
        return f"Fine-tuning made no measurable difference: {change} is within chance ({p})"
    worse = merged["accuracy"] < base["accuracy"]
    return f"Fine-tuning {'lowered' if worse else 'moved'} {change}{_overlap(base, merged, 'accuracy', p)}"


def _by_loss(base: Scores, merged: Scores, rows: str) -> str:
    versus = merged["vs_base"]
    change = f"loss from {_interval(base, 'loss')} to {_interval(merged, 'loss')} {rows}"
    paired = f"paired change {versus['loss_change']:+.2f} [{versus['loss_change_low']:+.2f}, {versus['loss_change_high']:+.2f}]"
    if not _is_certain(merged, "loss"):
        return f"Fine-tuning made no measurable difference: {change} is within chance ({paired})"
    worse = versus["loss_change"] > 0
    return f"Fine-tuning {'made it worse: ' if worse else 'moved '}{change}{_overlap(base, merged, 'loss', paired)}"


def _interval(scores: Scores, name: str) -> str:
    return f"{scores[name]:.2f} [{scores[f'{name}_low']:.2f}, {scores[f'{name}_high']:.2f}]"


def _overlap(base: Scores, merged: Scores, name: str, paired: str) -> str:
    """Overlapping intervals look like no difference; the paired comparison on the same rows is what decides."""
    apart = merged[f"{name}_low"] > base[f"{name}_high"] or merged[f"{name}_high"] < base[f"{name}_low"]
    return "" if apart else f" (the intervals overlap; compared row by row, {paired})"


def _guessing(merged: Scores, held_out: Mapping[str, Any]) -> str:
    """A model can beat its base and still be no better than one fixed answer."""
    share = held_out.get("majority_share")
    if share is None or merged["accuracy_low"] > share:
        return ""
    return f" The tuned model is not measurably better than always giving the most frequent answer ({share:.2f})."

"""The result in one sentence, no better than the numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stages.eval.scores import Scores

# Below this a difference is called one; the sentence gives p wherever it decides.
_LEVEL = 0.05


def verdict(scores: Mapping[str, Scores], held_out: Mapping[str, Any]) -> str:
    """Base against merged, then the quantised models. By accuracy where there are choices, by loss elsewhere.

    Args:
        scores: by model name; empty when nothing was judged.
        held_out: counts of the held-out rows, with ``majority_share`` where there are choices.
    """
    if not scores:
        return "Nothing was judged: no row is held out. Set val_set_size (or test_datasets) in params.yaml."
    base, merged = scores["base"], scores["merged"]
    measure = "accuracy" if "accuracy" in base else "loss"
    rows = f"on {merged['rows']} held-out row{'s' if merged['rows'] != 1 else ''}"
    sentence = _by_accuracy(base, merged, rows) if measure == "accuracy" else _by_loss(base, merged, rows)
    quantised = [f"{name} {scores[name][measure]:.2f}" for name in scores if name not in ("base", "merged")]
    return sentence + (f"; quantised {', '.join(quantised)}." if quantised else ".") + _guessing(merged, held_out)


def _by_accuracy(base: Scores, merged: Scores, rows: str) -> str:
    p = f"p {'< 0.0001' if (value := merged['vs_base']['p_value']) < 1e-4 else f'= {value:.2g}'}"
    change = f"accuracy from {_interval(base, 'accuracy')} to {_interval(merged, 'accuracy')} {rows}"
    if value >= _LEVEL:
        return f"Fine-tuning made no measurable difference: {change} is within chance ({p})"
    worse = merged["accuracy"] < base["accuracy"]
    return f"Fine-tuning {'lowered' if worse else 'moved'} {change}{_overlap(base, merged, 'accuracy', p)}"


def _by_loss(base: Scores, merged: Scores, rows: str) -> str:
    versus = merged["vs_base"]
    change = f"loss from {_interval(base, 'loss')} to {_interval(merged, 'loss')} {rows}"
    paired = f"paired change {versus['loss_change']:+.2f} [{versus['loss_change_low']:+.2f}, {versus['loss_change_high']:+.2f}]"
    if versus["loss_change_low"] <= 0 <= versus["loss_change_high"]:
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

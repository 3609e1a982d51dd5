"""The sentence at the top says no more than the numbers do."""

from __future__ import annotations

from typing import Any

from stages.eval.statistics import mcnemar_p, wilson_interval
from stages.eval.verdict import verdict


def by_accuracy(base: int, merged: int, lost: int, rows: int = 300) -> dict[str, dict[str, Any]]:
    """Scores of two models with so many rows right, ``lost`` of them only by the base."""

    def scores(right: int) -> dict[str, Any]:
        low, high = wilson_interval(right, rows)
        return {"rows": rows, "accuracy": right / rows, "accuracy_low": low, "accuracy_high": high}

    return {"base": scores(base), "merged": scores(merged) | {"vs_base": {"p_value": mcnemar_p(lost, merged - base + lost)}}}


def by_loss(base: float, merged: float, low: float, high: float) -> dict[str, dict[str, Any]]:
    def scores(loss: float) -> dict[str, Any]:
        return {"rows": 40, "loss": loss, "loss_low": loss - 0.1, "loss_high": loss + 0.1}

    change = {"loss_change": merged - base, "loss_change_low": low, "loss_change_high": high}
    return {"base": scores(base), "merged": scores(merged) | {"vs_base": change}}


def test_better() -> None:
    scores = by_accuracy(138, 234, lost=10) | {"int8": {"accuracy": 0.7833}, "q8_0": {"accuracy": 0.77}}
    assert verdict(scores, {"majority_share": 0.52}) == (
        "Fine-tuning moved accuracy from 0.46 [0.40, 0.52] to 0.78 [0.73, 0.82] on 300 held-out rows; quantised int8 0.78, q8_0 0.77."
    )


def test_within_chance() -> None:
    assert verdict(by_accuracy(150, 155, lost=40), {}).startswith("Fine-tuning made no measurable difference: accuracy from 0.50")


def test_worse_is_called_worse() -> None:
    assert verdict(by_accuracy(240, 150, lost=100), {}).startswith("Fine-tuning lowered accuracy from 0.80")


def test_overlapping_intervals_are_said_to_overlap() -> None:
    assert "(the intervals overlap; compared row by row, p < 0.0001)" in verdict(by_accuracy(150, 169, lost=0), {})


def test_no_better_than_one_fixed_answer() -> None:
    said = verdict(by_accuracy(100, 180, lost=5), {"majority_share": 0.58})
    assert said.endswith("The tuned model is not measurably better than always giving the most frequent answer (0.58).")


def test_loss_decides_without_choices() -> None:
    assert verdict(by_loss(2.0, 1.5, -0.6, -0.4), {}) == (
        "Fine-tuning moved loss from 2.00 [1.90, 2.10] to 1.50 [1.40, 1.60] on 40 held-out rows."
    )
    assert "no measurable difference" in verdict(by_loss(2.0, 1.98, -0.05, 0.01), {})
    assert verdict(by_loss(2.0, 2.5, 0.4, 0.6), {}).startswith("Fine-tuning made it worse: loss from 2.00")


def test_nothing_judged() -> None:
    assert "val_set_size" in verdict({}, {"rows": 0})

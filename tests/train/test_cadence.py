"""After which steps something is due: for any cadence at any number of steps."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.options.views import TrainOptions
from stages.train.loop.best import Criterion
from stages.train.loop.cadence import Cadence, evaluation_cadence, save_cadence
from stages.train.loop.schedule import plan_schedule


def due(cadence: Cadence, steps: int) -> list[int]:
    return [step for step in range(1, steps + 1) if cadence.due(step)]


def view(**options: Any) -> TrainOptions:
    return TrainOptions.model_validate({"learning_rate": 1e-3} | options)


@given(st.integers(1, 60), st.integers(1, 70), st.integers(1, 4))
def test_events_of_an_epoch_spread_evenly(bins: int, per_epoch: int, epochs: int) -> None:
    options = view(evals_per_epoch=per_epoch, num_epochs=epochs)
    schedule = plan_schedule(options, bins, 1)
    found = due(schedule.evaluations, schedule.steps)
    assert found == sorted({epoch * bins + math.ceil(k * bins / per_epoch) for epoch in range(epochs) for k in range(1, per_epoch + 1)})
    assert len(found) == epochs * min(per_epoch, bins)


@given(st.integers(1, 12), st.integers(1, 6), st.integers(1, 90))
def test_checkpoints_fall_on_evaluations_where_the_rules_say_so(per_epoch: int, factor: int, bins: int) -> None:
    """More evaluations than checkpoints by a whole factor."""
    schedule = plan_schedule(view(saves_per_epoch=per_epoch, evals_per_epoch=per_epoch * factor, num_epochs=2), bins, 1)
    assert set(due(schedule.saves, schedule.steps)) <= set(due(schedule.evaluations, schedule.steps))


@pytest.mark.parametrize(("options", "saves", "evaluations"), [
    ({}, [10, 20, 25], []),
    ({"save_steps": 10.0, "eval_steps": 7}, [10, 20, 25], [7, 14, 21, 25]),
    ({"save_steps": 0.1, "eval_steps": 0.3}, [3, 5, 8, 10, 13, 15, 18, 20, 23, 25], [8, 15, 23, 25]),
    ({"save_strategy": "no", "eval_strategy": "epoch"}, [], [10, 20, 25]),
    ({"save_strategy": "best", "evals_per_epoch": 0}, [], []),
])  # fmt: skip
def test_cadences(options: dict[str, Any], saves: list[int], evaluations: list[int]) -> None:
    schedule = plan_schedule(view(max_steps=25, **options), 10, 1)
    assert due(save_cadence(view(max_steps=25, **options), schedule), 25) == saves
    assert due(evaluation_cadence(view(max_steps=25, **options), schedule), 25) == evaluations


@pytest.mark.parametrize(("epochs", "bins", "steps"), [(1.1, 10, 11), (0.07, 100, 7), (2.5, 3, 8), (1e-5, 10, 1), (3, 7, 21)])
def test_parts_of_epochs_are_counted_in_decimals(epochs: float, bins: int, steps: int) -> None:
    assert plan_schedule(view(num_epochs=epochs), bins, 1).steps == steps


def test_more_events_than_steps_are_one_a_step() -> None:
    assert due(Cadence(Fraction(1, 7), 4), 4) == [1, 2, 3, 4]


HISTORY = [
    {"step": 0, "m": 0.0},
    {"step": 1, "m": float("nan")},
    {"step": 2, "m": 3.0},
    {"step": 2, "loss": 0.0},
    {"step": 4, "m": 2.0},
    {"step": 6, "m": 2.0},
    {"step": 8, "m": 5.0},
]


@pytest.mark.parametrize(("greater", "counts", "best", "since"), [
    (False, lambda step: True, 4, 2), (True, lambda step: True, 8, 0),
    (False, lambda step: step != 4, 6, 2), (True, lambda step: step < 2, None, 0),
])  # fmt: skip
def test_the_first_of_the_best_evaluations_counts(greater: bool, counts: Any, best: int | None, since: int) -> None:
    criterion = Criterion("m", greater)
    assert criterion.best(HISTORY, counts) == best
    assert criterion.without_improvement(HISTORY) == since
    assert Criterion("m", greater).best([]) is None

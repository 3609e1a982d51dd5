"""The learning rate at every step, by formulas written down anew; and schedules that follow evaluations."""

from __future__ import annotations

import inspect
import math
import signal
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau
from transformers import optimization

from pipeline.errors import Interrupted, RegrowError
from pipeline.options.rules.schedule_arguments import ARGUMENTS, VALUES
from pipeline.options.schedule import SchedulerName
from pipeline.options.views import TrainOptions
from stages.train.learning_rates.build import build_scheduler
from tests.train.workspace import FULL, SignalAt, finished, read_log, train

STEPS, WARMUP = 40, 8


def view(**options: Any) -> TrainOptions:
    return TrainOptions.model_validate({"learning_rate": 1.0} | options)


def course(warmup: int = WARMUP, steps: int = STEPS, **options: Any) -> list[list[float]]:
    """The rates of two groups, whose peaks are 1 and 0.1, at every step."""
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (1.0, 0.1)]
    optimizer = torch.optim.SGD(groups, lr=1.0, momentum=0.9)
    scheduler = build_scheduler(optimizer, view(**options), warmup, steps)
    found = []
    for _ in range(steps):
        found.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return found


def factors(**options: Any) -> list[float]:
    """What the peak is multiplied by at every step, which is the same for every group."""
    rates = course(**options)
    assert [second * 10 for _, second in rates] == pytest.approx([first for first, _ in rates])
    return [first for first, _ in rates]


def rise(step: int) -> float:
    return step / WARMUP


def fall(step: int, end: int = STEPS) -> float:
    """From 1 at the end of the warm-up to 0 at ``end``."""
    return max(0.0, (end - step) / (end - WARMUP))


def half_cosine(share: float) -> float:
    """1 where ``share`` is 1, 0 where it is 0."""
    return math.sin(math.pi / 2 * share) ** 2


FORMULAS: list[tuple[dict[str, Any], Any]] = [
    ({"lr_scheduler": "linear"}, fall),
    ({"lr_scheduler": "cosine"}, lambda step: half_cosine(fall(step))),
    ({"lr_scheduler": "constant_with_warmup"}, lambda _: 1.0),
    ({"lr_scheduler": "inverse_sqrt"}, lambda step: math.sqrt(WARMUP / step)),
    ({"lr_scheduler": "polynomial", "lr_scheduler_kwargs": {"power": 2, "lr_end": 0}}, lambda step: fall(step) ** 2),
    (
        {"lr_scheduler": "cosine_with_restarts", "lr_scheduler_kwargs": {"num_cycles": 2}},
        lambda step: half_cosine(2 * fall(step) - (1 if fall(step) > 0.5 else 0)),
    ),
    (
        {"lr_scheduler": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": 0.2}},
        lambda step: 0.2 + 0.8 * half_cosine(fall(step)),
    ),
    ({"lr_scheduler": "rex"}, lambda step: fall(step) / (0.1 + 0.9 * fall(step))),
    ({"lr_scheduler": "rex", "cosine_min_lr_ratio": 0.1}, lambda step: 0.1 + 0.9 * fall(step) / (0.1 + 0.9 * fall(step))),
    ({"cosine_min_lr_ratio": 0.2}, lambda step: 0.2 + 0.8 * half_cosine(fall(step))),
    (
        {"cosine_min_lr_ratio": 0.2, "cosine_constant_lr_ratio": 0.7},
        lambda step: 0.2 + 0.8 * half_cosine(fall(step, 28)),
    ),
]


@pytest.mark.shows(
    "lr_scheduler", "lr_scheduler_kwargs", "cosine_min_lr_ratio", "cosine_constant_lr_ratio", "warmup_steps"
)  # fmt: skip
@pytest.mark.parametrize(("options", "formula"), FORMULAS, ids=[" ".join(map(str, options.values())) for options, _ in FORMULAS])
def test_formulas(options: dict[str, Any], formula: Any) -> None:
    found = factors(**options)
    assert found[:WARMUP] == pytest.approx([rise(step) for step in range(WARMUP)])
    assert found[WARMUP:] == pytest.approx([formula(step) for step in range(WARMUP, STEPS)], abs=1e-12)


@pytest.mark.shows("lr_quadratic_warmup")
@pytest.mark.parametrize("floor", [0.0, 0.25])
def test_quadratic_warmup(floor: float) -> None:
    found = factors(lr_quadratic_warmup=True, cosine_min_lr_ratio=floor)
    assert found[:WARMUP] == pytest.approx([rise(step) ** 2 for step in range(WARMUP)])
    assert found[WARMUP:] == pytest.approx([floor + (1 - floor) * half_cosine(fall(step)) for step in range(WARMUP, STEPS)])


def test_warmup_stable_decay() -> None:
    kwargs = {"num_decay_steps": 10, "decay_type": "linear"}
    found = factors(lr_scheduler="warmup_stable_decay", lr_scheduler_kwargs=kwargs)
    expected = [rise(step) for step in range(WARMUP)] + [1.0] * 22 + [(40 - step) / 10 for step in range(30, 40)]
    assert found == pytest.approx(expected)


def test_constant() -> None:
    assert factors(lr_scheduler="constant") == [1.0] * STEPS


@pytest.mark.shows("lr_div_factor")
@pytest.mark.parametrize(("options", "start"), [({}, 1 / 25), ({"lr_div_factor": 10}, 0.1)])
def test_one_cycle(options: dict[str, Any], start: float) -> None:
    """Up half a cosine for as long as the warm-up, and down to almost nothing; every group to a peak of its own."""
    found = factors(lr_scheduler="one_cycle", **options)
    last = start / 1e4
    expected = [start + (1 - start) * half_cosine(step / (WARMUP - 1)) for step in range(WARMUP)]
    expected += [last + (1 - last) * half_cosine((39 - step) / (39 - 7)) for step in range(WARMUP, STEPS)]
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("warmup", "steps", "rates"), [(1, 3, [1, 0.5, 0]), (1, 1, [0]), (3, 3, [0.04, 0.52, 1]), (2, 3, [0.04, 1, 0]), (0, 3, [0.75, 0.25, 0])]
)
def test_one_cycle_takes_any_warmup(warmup: int, steps: int, rates: list[float]) -> None:
    """The first of one step is the peak; after one as long as the run nothing is left to fall."""
    assert [first for first, _ in course(warmup, steps, lr_scheduler="one_cycle")] == pytest.approx(rates, abs=1e-5)
    with pytest.raises(RegrowError, match=f"one_cycle rises for the {steps + 1} steps of the warm-up, and the run has {steps}"):
        course(steps + 1, steps, lr_scheduler="one_cycle")


def test_one_cycle_takes_torchs_arguments() -> None:
    assert factors(lr_scheduler="one_cycle", lr_scheduler_kwargs={"pct_start": 0.5, "anneal_strategy": "linear"})[19] == pytest.approx(1)
    with pytest.raises(RegrowError, match="one_cycle does not take its arguments: anneal_strategy"):
        factors(lr_scheduler="one_cycle", lr_scheduler_kwargs={"anneal_strategy": "cubic"})


@pytest.mark.shows("jagged_restart_steps", "jagged_restart_warmup_steps", "jagged_restart_anneal_steps", "cosine_min_lr_ratio")
@pytest.mark.parametrize("schedule", ["linear", "rex", "one_cycle", "constant"])
@pytest.mark.parametrize("floor", [0.1, None])
def test_jagged_restarts_wrap_any_schedule(schedule: str, floor: float | None) -> None:
    """Down in two steps before the 12th, 24th and 36th, at the floor there, and up in four."""
    low = floor or 0.001
    around = {10: 1.0, 11: 0.5, 0: 0.0, 1: 0.25, 2: 0.5, 3: 0.75}
    jagged = {"jagged_restart_steps": 12, "jagged_restart_warmup_steps": 4, "jagged_restart_anneal_steps": 2}
    whole = factors(lr_scheduler=schedule, cosine_min_lr_ratio=floor)
    heights = [1.0 if step < 4 else around.get(step % 12, 1.0) for step in range(STEPS)]
    expected = [rate * (low + (1 - low) * height) for rate, height in zip(whole, heights, strict=True)]
    assert factors(lr_scheduler=schedule, cosine_min_lr_ratio=floor, **jagged) == pytest.approx(expected)


def test_restarts_by_default_warm_up_ten_steps_from_nothing_before() -> None:
    found = factors(lr_scheduler="constant", jagged_restart_steps=20)
    climb = [0.001 + 0.999 * step / 10 for step in range(10)]
    assert found == pytest.approx([1.0] * 20 + climb + [1.0] * 10)


def test_schedules_have_the_arguments_that_the_check_knows() -> None:
    assert ARGUMENTS.keys() == set(get_args(SchedulerName))
    told = {"optimizer", "num_warmup_steps", "num_training_steps", "last_epoch", "total_steps", "epochs", "steps_per_epoch", "verbose"}
    functions = {name.value: function for name, function in optimization.TYPE_TO_SCHEDULER_FUNCTION.items()}
    special = {"reduce_lr_on_plateau": ReduceLROnPlateau, "greedy": optimization.GreedyLR, "one_cycle": OneCycleLR}
    assert VALUES.keys() == {argument for known in ARGUMENTS.values() for argument in known}
    for name, known in ARGUMENTS.items():
        function: Any = special.get(name) or functions.get(name)
        taken = set(inspect.signature(function).parameters) if function else set()
        assert set(known) == taken - told - ({"max_lr"} if name == "one_cycle" else set())


@pytest.mark.parametrize(
    "options",
    [
        {"lr_scheduler": "one_cycle", "warmup_steps": 2},
        {"cosine_min_lr_ratio": 0.5, "jagged_restart_steps": 3, "jagged_restart_warmup_steps": 1},
    ],
)
def test_a_run_logs_the_rates_and_resumes_to_the_bit(published: Path, workspace: Path, options: dict[str, Any]) -> None:
    options = FULL | {"learning_rate": 0.01, "warmup_steps": 0, "lr_groups": [{"name": "a", "modules": ["mlp"], "lr": 1e-3}]} | options
    expected = finished(published, options)
    rates = [first * 0.01 for first, _ in course(**{"warmup": options["warmup_steps"], "steps": 6} | without(options))]
    assert [line["learning_rate"] for line in expected.log] == pytest.approx(rates, rel=1e-5)
    with pytest.raises(Interrupted):
        train(workspace, options, progress=SignalAt(4, signal.SIGTERM))
    assert train(workspace, options)[0].files == expected.files


def without(options: dict[str, Any]) -> dict[str, Any]:
    """The options of the schedule alone, for a peak of 1."""
    return {key: value for key, value in options.items() if key.startswith(("lr_scheduler", "cosine", "jagged"))}


@pytest.mark.parametrize(
    ("scheduler", "rates"),
    [("reduce_lr_on_plateau", [1e-3, 1e-3, 1e-3, 1e-3, 5e-4, 5e-4]), ("greedy", [1e-3, 1e-3, 2e-3, 2e-3, 1e-3, 1e-3])],
)
def test_schedules_follow_what_is_measured(held_out: Path, measured: Path, scheduler: str, rates: list[float]) -> None:
    """The first loss is the best so far, and none after it is better by its half."""
    kwargs = {"factor": 0.5, "patience": 0, "threshold": 0.5, "threshold_mode": "rel", "min_lr": 1e-6}
    options = FULL | {"lr_scheduler": scheduler, "lr_scheduler_kwargs": kwargs, "eval_steps": 2, "learning_rate": 1e-3}
    expected = finished(held_out, options)
    assert [line["learning_rate"] for line in expected.log] == rates
    with pytest.raises(Interrupted):
        train(measured, options, progress=SignalAt(5, signal.SIGTERM))
    resumed, _ = train(measured, options)
    assert resumed.files == expected.files and [line["learning_rate"] for line in read_log(resumed)] == rates

"""Evaluation while training: exact, at the promised steps, without a trace in what is learnt, the same after a resume."""

from __future__ import annotations

import math
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.bins import Bins
from pipeline.errors import Interrupted, RegrowError
from pipeline.models import load_causal_lm
from pipeline.tokens import TokenTable
from tests.train.workspace import FULL, LORA, Heard, SignalAt, evaluated, finished, read_log, train

STILL: dict[str, Any] = FULL | {"learning_rate": 1e-12, "optimizer": "sgd", "max_steps": 1, "eval_steps": 1}
WORSE: dict[str, Any] = FULL | {"learning_rate": 0.5, "optimizer": "sgd", "warmup_steps": 0, "eval_steps": 1, "save_steps": 1}
WORSE |= {"num_epochs": 5}
"""After a step or two the held-out rows only get less likely."""


def by_hand(model: Path, data: Path) -> tuple[float, float]:
    """Mean loss and share of right guesses over the trained tokens of the held-out rows, one row at a time."""
    network, tokens = load_causal_lm(model), TokenTable(data / "tokens")
    losses, right = [], []
    for row in Bins.load(data / "packed" / "eval.arrow").row.tolist():
        ids, trained = torch.from_numpy(tokens.ids(row).astype(np.int64)), torch.from_numpy(tokens.mask(row)[1:] == 1)
        with torch.no_grad():
            logits = network(input_ids=ids[None]).logits[0, :-1][trained]
        losses += torch.nn.functional.cross_entropy(logits, ids[1:][trained], reduction="none").tolist()
        right += (logits.argmax(-1) == ids[1:][trained]).tolist()
    return math.fsum(losses) / len(losses), sum(right) / len(right)


@pytest.mark.shows("eval_batch_size")
@pytest.mark.parametrize("layout", [([16, 17, 18], [19], [20, 21]), ([16, 17, 18, 19, 20, 21],), ([16], [17], [18], [19], [20], [21])])
def test_an_evaluation_is_exact_whatever_the_batches_and_bins(tmp_path: Path, layout: Any) -> None:
    data = evaluated(tmp_path, layout) / "data"
    loss, accuracy = by_hand(data / "base", data)
    for size in (1, 2, 5):
        before, after = read_log(train(tmp_path, STILL | {"eval_batch_size": size})[0], "eval.csv")
        assert before["eval_loss"] == after["eval_loss"] == pytest.approx(loss, abs=2e-5)
        assert before["eval_perplexity"] == pytest.approx(math.exp(loss), rel=2e-5)
        assert before["eval_accuracy"] == pytest.approx(accuracy, abs=1e-6)


def test_eval_batch_size_is_the_number_of_rows_of_a_forward_pass(measured: Path) -> None:
    class Notes(Heard):
        def at(self, task: Any) -> None:
            notes.append(task.note)

    for options, batches in (({}, 2), ({"eval_batch_size": 1}, 3), ({"eval_batch_size": 3}, 1)):
        notes: list[str] = []
        train(measured, STILL | options, progress=Notes())
        assert {note for note in notes if note.startswith("evaluating")} == {f"evaluating, batch {n + 1}" for n in range(batches)}


@pytest.mark.shows("eval_steps", "evals_per_epoch", "eval_strategy")
@pytest.mark.parametrize(("options", "steps"), [
    ({"eval_steps": 4}, [0, 4, 6]),
    ({"eval_steps": 0.5}, [0, 3, 6]),
    ({"evals_per_epoch": 2}, [0, 1, 2, 3, 4, 5, 6]),
    ({"eval_strategy": "epoch"}, [0, 2, 4, 6]),
    ({"eval_strategy": "epoch", "max_steps": 3}, [0, 2, 3]),
])  # fmt: skip
def test_evaluations_happen_when_they_are_due(measured: Path, options: dict[str, Any], steps: list[int]) -> None:
    trained, metrics = train(measured, FULL | options)
    lines = read_log(trained, "eval.csv")
    assert [line["step"] for line in lines] == steps
    assert [line["epoch"] for line in lines] == [step / 2 for step in steps]
    assert metrics["evaluations"] == len(steps) and metrics["eval_loss"] == pytest.approx(lines[-1]["eval_loss"], rel=1e-5)


@pytest.mark.parametrize("options", [{}, {"eval_strategy": "no"}, {"evals_per_epoch": 0}])
def test_nothing_is_measured_unasked(measured: Path, options: dict[str, Any]) -> None:
    trained, metrics = train(measured, FULL | options | {"max_steps": 1})
    assert "eval.csv" not in trained.files and "eval_loss" not in metrics


def test_measuring_leaves_no_trace_in_what_is_learnt(held_out: Path, measured: Path) -> None:
    """With dropout: a single random number drawn on the way would change every step after."""
    trained, _ = train(measured, LORA | {"eval_steps": 1})
    for name in ("log.csv", "adapter_model.safetensors"):
        assert trained.files[name] == finished(held_out, LORA).files[name]


@pytest.mark.parametrize("step", [2, 3])
def test_a_resume_neither_repeats_nor_loses_evaluations(held_out: Path, measured: Path, step: int) -> None:
    options = LORA | {"eval_steps": 3}
    with pytest.raises(Interrupted):
        train(measured, options, progress=SignalAt(step, signal.SIGTERM))
    assert train(measured, options)[0].files == finished(held_out, options).files


def losses_of(log: list[dict[str, float]]) -> dict[int, float]:
    return {int(line["step"]): line["eval_loss"] for line in log}


@pytest.mark.shows("load_best_model_at_end", "metric_for_best_model", "greater_is_better")
@pytest.mark.parametrize("options", [{}, {"save_strategy": "best", "save_steps": None, "metric_for_best_model": "loss"}])
@pytest.mark.parametrize("stop", [None, 7])
def test_the_best_model_is_given_out(held_out: Path, measured: Path, options: dict[str, Any], stop: int | None) -> None:
    options = WORSE | options | {"load_best_model_at_end": True, "save_total_limit": 1, "greater_is_better": False}
    if stop is not None:
        with pytest.raises(Interrupted):
            train(measured, options, progress=SignalAt(stop, signal.SIGTERM))
    trained, metrics = train(measured, options)
    losses = losses_of(read_log(trained, "eval.csv"))
    best = min((step for step in losses if step > 0), key=losses.__getitem__)
    assert best < max(losses) and metrics["best_step"] == best
    assert by_hand(trained.path, measured / "data")[0] == pytest.approx(losses[best], rel=1e-5)
    assert metrics["eval_loss"] == pytest.approx(losses[best], rel=1e-5)
    assert trained.files == finished(held_out, options).files


def test_the_best_by_another_metric(measured: Path) -> None:
    options = FULL | {"learning_rate": 0.02, "eval_steps": 2, "load_best_model_at_end": True, "metric_for_best_model": "accuracy"}
    trained, metrics = train(measured, options)
    lines = [line for line in read_log(trained, "eval.csv") if line["step"] > 0]
    assert metrics["best_step"] == max(lines, key=lambda line: (line["eval_accuracy"], -line["step"]))["step"]


def test_a_lora_adapter_goes_back_to_its_best(measured: Path) -> None:
    options = LORA | {"learning_rate": 2, "warmup_steps": 0, "eval_steps": 2, "load_best_model_at_end": True}
    given, metrics = train(measured, options)
    until, _ = train(measured, LORA | options | {"load_best_model_at_end": False})
    assert metrics["best_step"] < 6
    assert given.files["adapter_model.safetensors"] != until.files["adapter_model.safetensors"]
    assert given.files["log.csv"] == until.files["log.csv"]


@pytest.mark.shows("early_stopping_patience")
@pytest.mark.parametrize("cadence", [{}, {"eval_steps": None, "eval_strategy": "epoch"}])
@pytest.mark.parametrize("patience", [1, 2])
def test_a_run_that_gets_no_better_stops(held_out: Path, measured: Path, cadence: dict[str, Any], patience: int) -> None:
    options = WORSE | cadence | {"early_stopping_patience": patience}
    whole = losses_of(read_log(train(measured, WORSE | cadence)[0], "eval.csv"))
    trained, metrics = train(measured, options)
    steps = [step for step in sorted(whole) if 0 < step <= metrics["steps"]]
    *before, best = steps[:-patience]
    assert all(whole[best] < whole[step] for step in before) and all(whole[best] <= whole[step] for step in steps[-patience:])
    assert metrics["steps"] < 10
    assert read_log(trained)[-1]["step"] == metrics["steps"]
    assert losses_of(read_log(trained, "eval.csv")) == {step: loss for step, loss in whole.items() if step <= metrics["steps"]}


def test_patience_outlives_a_stop(held_out: Path, measured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = WORSE | {"early_stopping_patience": 2}
    expected = finished(held_out, options)
    last = int(expected.log[-1]["step"])
    with pytest.raises(Interrupted):
        train(measured, options, progress=SignalAt(last - 1, signal.SIGTERM))
    with monkeypatch.context() as patch, pytest.raises(Interrupted):  # killed after the last step
        patch.setattr("stages.train.session._write", interrupt)
        train(measured, options)
    heard = Heard()
    assert train(measured, options, progress=heard)[0].files == expected.files
    assert heard.said == [f"Continuing from the checkpoint of step {last} of 10."]


def interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("options", [{"eval_steps": 2}, {"eval_strategy": "epoch"}])
def test_rows_to_measure_must_be_there(workspace: Path, options: dict[str, Any]) -> None:
    with pytest.raises(RegrowError, match=f"{next(iter(options))}: .*eval.arrow holds no token"):
        train(workspace, FULL | options)

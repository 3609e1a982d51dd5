"""What watches over a run, and what it leaves on record beside the artifacts."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pipeline.errors import Interrupted, RegrowError
from stages.train.loss import token_loss
from tests.train.workspace import FULL, Heard, SignalAt, finished, train


@pytest.mark.shows("loss_watchdog_threshold", "loss_watchdog_patience")
@pytest.mark.parametrize(("options", "step"), [
    ({}, 3), ({"logging_steps": 4}, 3), ({"loss_watchdog_patience": 5}, 5), ({"loss_watchdog_patience": 1}, 1),
])  # fmt: skip
def test_a_loss_that_stays_high_fails_the_run(workspace: Path, options: dict[str, Any], step: int) -> None:
    """Every step counts once, however often a line is logged."""
    with pytest.raises(RegrowError, match=f"loss_watchdog_threshold 2 in {step} steps in a row; it is .* at step {step}"):
        train(workspace, FULL | {"loss_watchdog_threshold": 2} | options)
    assert not (workspace / "data" / "trained").exists()


def test_the_watchdog_remembers_steps_before_a_stop(workspace: Path) -> None:
    options = FULL | {"loss_watchdog_threshold": 2, "loss_watchdog_patience": 4}
    with pytest.raises(Interrupted):
        train(workspace, options, progress=SignalAt(3, signal.SIGTERM))
    with pytest.raises(RegrowError, match="at step 4"):
        train(workspace, options, progress=Heard())


def test_a_low_loss_passes_and_a_single_low_step_calms(published: Path, workspace: Path) -> None:
    losses = [line["loss"] for line in finished(published, FULL).log]
    between = FULL | {"loss_watchdog_threshold": sorted(losses)[1], "loss_watchdog_patience": 6}
    assert train(workspace, between)[1]["steps"] == 6


@pytest.mark.shows("gc_collect_steps", "torch_empty_cache_steps")
@pytest.mark.parametrize(("option", "value", "times"), [
    ("gc_collect_steps", 2, 3), ("gc_collect_steps", -1, 5), ("torch_empty_cache_steps", 3, 2), ("torch_empty_cache_steps", -1, 5),
])  # fmt: skip
def test_memory_is_freed_when_it_is_due(measured: Path, monkeypatch: pytest.MonkeyPatch, option: str, value: int, times: int) -> None:
    """-1: after three epochs and before two evaluations."""
    freed: list[str] = []
    cuda = SimpleNamespace(is_available=lambda: True, empty_cache=lambda: freed.append("torch_empty_cache_steps"))
    monkeypatch.setattr("stages.train.loop.guards.gc", SimpleNamespace(collect=lambda: freed.append("gc_collect_steps")))
    monkeypatch.setattr("stages.train.loop.guards.torch", SimpleNamespace(cuda=cuda))
    train(measured, FULL | {option: value, "eval_steps": 3})
    assert freed == [option] * times


@pytest.mark.shows("profiler_steps", "profiler_steps_start")
@pytest.mark.parametrize(("start", "steps", "name"), [(0, 1, "profile-1-1.json"), (1, 2, "profile-2-3.json"), (5, 9, "profile-6-14.json")])
def test_a_profile_has_the_steps_asked_for(published: Path, workspace: Path, start: int, steps: int, name: str) -> None:
    trained, _ = train(workspace, FULL | {"profiler_steps": steps, "profiler_steps_start": start})
    events = json.loads((workspace / "data" / "metrics" / "train" / name).read_text())["traceEvents"]
    updates = [event for event in events if event.get("name") == "Optimizer.step#AdamW.step"]
    assert len(updates) == min(steps, 6 - start)
    assert trained.files == finished(published, FULL).files


def test_on_a_gpu_its_memory_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stages.train.loop.guards import Profile

    calls: list[Any] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda.memory, "_record_memory_history", lambda **settings: calls.append(settings))
    monkeypatch.setattr(torch.cuda.memory, "_dump_snapshot", calls.append)
    profile, arguments, control = Profile(tmp_path, 2, 3), Any, Any
    for step in range(6):
        profile.on_step_begin(arguments, SimpleNamespace(global_step=step, max_steps=6), control)  # type: ignore[arg-type]
        profile.on_step_end(arguments, SimpleNamespace(global_step=step + 1, max_steps=6), control)  # type: ignore[arg-type]
    profile.on_train_end(arguments, Any, control)  # type: ignore[arg-type]
    assert calls == [{}, str(tmp_path / "profile-2-3.pickle"), {"enabled": None}]


def test_a_profile_of_no_step_is_mentioned(workspace: Path) -> None:
    heard = Heard()
    train(workspace, FULL | {"profiler_steps": 2, "profiler_steps_start": 6}, progress=heard)
    assert "profiler_steps_start: 6, and the run has 6 steps: nothing is recorded." in heard.said
    assert not list((workspace / "data" / "metrics" / "train").glob("profile-*"))


@pytest.mark.shows("include_tkps")
def test_speeds_of_steps_are_on_record(workspace: Path) -> None:
    path, heard = workspace / "data" / "metrics" / "train" / "speed.csv", Heard()
    _, metrics = train(workspace, FULL | {"include_tkps": False}, progress=heard)
    assert not path.exists() and heard.tasks[0].rate() == ""
    with pytest.raises(Interrupted):
        train(workspace, FULL | {"seed": 1}, progress=SignalAt(3, signal.SIGTERM))
    train(workspace, FULL | {"seed": 1}, progress=heard)
    header, *lines = path.read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == list("123456")
    path.write_text("\n".join([header, *lines[:5], "6,0."]))  # as a kill in the middle of a line leaves it, after a save at step 4
    with pytest.raises(Interrupted):
        train(workspace, FULL | {"seed": 2}, progress=SignalAt(3, signal.SIGTERM))
    path.write_text("\n".join([header, *lines[:5], "6,0."]))
    train(workspace, FULL | {"seed": 2}, progress=heard)
    header, *lines = path.read_text().splitlines()
    assert header == "step,seconds,tokens,tokens_per_second" and [line.split(",")[0] for line in lines] == list("123456")
    assert sum(int(line.split(",")[2]) for line in lines) == metrics["tokens"]
    assert heard.tasks[-1].rate().endswith("tok/s")


@pytest.mark.shows("include_tokens_per_second")
def test_the_speed_of_a_run_is_said(workspace: Path) -> None:
    heard, observed = Heard(), dict[str, Any]()
    _, metrics = train(workspace, FULL | {"include_tokens_per_second": True}, progress=heard, observed=observed)
    assert heard.said[0].startswith(f"{metrics['tokens']} tokens in ") and heard.said[0].endswith("tokens per second.")
    assert observed["tokens_per_second"] > 0


def test_the_progress_line_tells_loss_rate_norm_and_evaluation(measured: Path) -> None:
    heard = Heard()
    train(measured, FULL | {"eval_steps": 5}, progress=heard)
    words = heard.tasks[0].note.split("  ")
    assert [word.rsplit(" ", 1)[0] for word in words] == ["eval loss"]

    class Notes(Heard):
        def at(self, task: Any) -> None:
            notes.append(task.note)

    notes: list[str] = []
    train(measured, FULL | {"eval_steps": 5}, progress=Notes())
    assert [word.rsplit(" ", 1)[0] for word in notes[-4].split("  ")] == ["loss", "lr", "norm", "eval loss"]


def test_a_gradient_that_is_no_number_in_the_last_step_ends_the_run(monkeypatch: pytest.MonkeyPatch, workspace: Path) -> None:
    """The loss is still one, and no step comes that would show the weights; Gemma 3n has such gradients at pads of zeros."""

    def loss(outputs: Any, labels: Any, num_items_in_batch: Any) -> torch.Tensor:
        return token_loss(outputs, labels, num_items_in_batch) + (0 * outputs.logits).sum().sqrt()

    monkeypatch.setattr("stages.train.trainer.choose_loss", lambda model, options: loss)
    with pytest.raises(RegrowError, match="The norm of the gradient is nan at step 1: training has diverged"):
        train(workspace, FULL | {"max_steps": 1})
    assert not (workspace / "data" / "trained").exists()

"""Checkpoints: when they are written, which are kept, who may go on from them, and what a full disk leaves."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from pipeline.digest import digest_file
from pipeline.errors import Interrupted, RegrowError
from pipeline.progress import Task
from stages.train.checkpoints import complete
from stages.train.checkpoints.complete import MARKER, ORIGIN, is_complete, mark_complete
from tests.train.workspace import FULL, LORA, Heard, SignalAt, finished, train

EVERY: dict[str, Any] = {name: value for name, value in FULL.items() if name != "save_steps"} | {"save_total_limit": 9}


def checkpoints(workspace: Path) -> dict[int, Path]:
    folders = (workspace / ".regrow" / "train" / "checkpoints").glob("checkpoint-*")
    return {int(folder.name.split("-")[1]): folder for folder in folders}


def stopped(workspace: Path, options: dict[str, Any], step: int = 5, kind: type[SignalAt] = SignalAt) -> list[int]:
    """Steps of the checkpoints of a run that was asked to stop."""
    with pytest.raises(Interrupted):
        train(workspace, options, progress=kind(step, signal.SIGTERM))
    return sorted(checkpoints(workspace))


@pytest.mark.shows("save_steps", "saves_per_epoch", "save_strategy", "save_first_step", "save_total_limit")
@pytest.mark.parametrize(("options", "steps"), [
    ({}, [2, 4, 5]),
    ({"save_strategy": "epoch"}, [2, 4, 5]),
    ({"save_steps": 3}, [3, 5]),
    ({"save_steps": 0.5, "save_strategy": "steps"}, [3, 5]),
    ({"saves_per_epoch": 2}, [1, 2, 3, 4, 5]),
    ({"save_strategy": "no"}, [5]),
    ({"save_strategy": "no", "save_first_step": True}, [1, 5]),
    ({"save_steps": 1, "save_total_limit": 2}, [4, 5]),
])  # fmt: skip
def test_checkpoints_are_written_when_they_are_due(workspace: Path, options: dict[str, Any], steps: list[int]) -> None:
    assert stopped(workspace, EVERY | options) == steps


@pytest.mark.shows("save_strategy", "load_best_model_at_end")
def test_the_best_checkpoint_stays(measured: Path) -> None:
    options = EVERY | {"learning_rate": 0.5, "optimizer": "sgd", "eval_steps": 1, "warmup_steps": 0, "num_epochs": 5}
    best = stopped(measured, options | {"save_strategy": "best"}, 8)
    assert best[0] == 1 and len(best) < 5 and best[-1] == 8
    kept = {"save_steps": 1, "save_total_limit": 1, "load_best_model_at_end": True, "auto_resume_from_checkpoints": False}
    assert stopped(measured, options | kept, 8) == best[-2:]


@pytest.mark.shows("save_only_model")
def test_checkpoints_without_optimizer_state_start_anew(published: Path, workspace: Path) -> None:
    options = FULL | {"save_only_model": True, "save_steps": 1, "save_total_limit": 9}
    assert stopped(workspace, options) == [1, 2, 3, 4, 5]
    assert not (checkpoints(workspace)[4] / "optimizer.pt").exists()
    assert (checkpoints(workspace)[5] / "optimizer.pt").exists()  # a stop loses nothing
    shutil.rmtree(checkpoints(workspace)[5])
    heard = Heard()
    trained, _ = train(workspace, options, progress=heard)
    assert heard.said == []
    assert trained.files == finished(published, options).files


@pytest.mark.shows("auto_resume_from_checkpoints")
def test_a_run_starts_anew_when_told_so(workspace: Path) -> None:
    stopped(workspace, FULL)
    heard = SignalAt(1, signal.SIGTERM)
    with pytest.raises(Interrupted):
        train(workspace, FULL | {"auto_resume_from_checkpoints": False}, progress=heard)
    assert heard.said == [] and sorted(checkpoints(workspace)) == [1]


@pytest.mark.shows("resume_from_checkpoint")
@pytest.mark.parametrize("options", [FULL, LORA], ids=["full", "lora"])
def test_a_run_goes_on_from_the_checkpoint_named(published: Path, workspace: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    stopped(workspace, options)
    shutil.copytree(checkpoints(workspace)[4], tmp_path / "elsewhere")
    shutil.copytree(checkpoints(workspace)[2], tmp_path / "checkpoint-2")
    for folder, step in (("elsewhere", 4), ("checkpoint-2", 2)):
        heard = SignalAt(5, signal.SIGTERM)
        with pytest.raises(Interrupted):
            train(workspace, options | {"resume_from_checkpoint": str(tmp_path / folder)}, progress=heard)
        assert heard.said == [f"Continuing from the checkpoint of step {step} of 6."]
    trained, _ = train(workspace, options | {"resume_from_checkpoint": str(tmp_path / "checkpoint-2")})
    assert trained.files == finished(published, options).files


@pytest.mark.parametrize(("changed", "says"), [
    ({"learning_rate": 0.5}, "learning_rate: 0.001 there, 0.5 here"),
    ({"adapter": "lora"}, "adapter: not set there, lora here"),
    ({"bf16": True}, r"bf16: auto there, True here\n  precision: fp32 there, bf16 here"),
])  # fmt: skip
def test_a_checkpoint_of_another_run_is_refused_by_the_field(workspace: Path, tmp_path: Path, changed: dict[str, Any], says: str) -> None:
    stopped(workspace, FULL)
    shutil.move(checkpoints(workspace)[4], tmp_path / "checkpoint-4")
    with pytest.raises(RegrowError, match=rf"resume_from_checkpoint: .* another run:\n  {says}"):
        train(workspace, FULL | changed | {"resume_from_checkpoint": str(tmp_path / "checkpoint-4")}, progress=Heard())


def test_a_checkpoint_of_other_rows_is_refused(workspace: Path, tmp_path: Path) -> None:
    stopped(workspace, FULL)
    origin = json.loads((checkpoints(workspace)[4] / ORIGIN).read_text())
    assert origin["inputs"].keys() == {"base", "tokenizer", "tokens", "packed"}
    origin["inputs"]["packed"] = "0"
    changed = shutil.copytree(checkpoints(workspace)[4], tmp_path / "checkpoint-4")
    (changed / ORIGIN).write_text(json.dumps(origin))
    mark_complete(changed)
    with pytest.raises(RegrowError, match="data/packed is another one"):
        train(workspace, FULL | {"resume_from_checkpoint": str(changed)})


@pytest.mark.parametrize(("damage", "says"), [
    (ORIGIN, "has no origin.json"), (MARKER, "is not complete"), ("optimizer.pt", "is not complete"), (None, "is not a folder"),
])  # fmt: skip
def test_what_is_no_checkpoint_is_refused(workspace: Path, damage: str | None, says: str) -> None:
    stopped(workspace, FULL)
    folder = checkpoints(workspace)[4]
    if damage is not None:
        (folder / damage).unlink()
    with pytest.raises(RegrowError, match=f"resume_from_checkpoint: .*{says}"):
        train(workspace, FULL | {"resume_from_checkpoint": str(folder if damage else folder / "gone")})


def test_a_file_with_the_name_of_a_checkpoint_is_left_alone(published: Path, workspace: Path) -> None:
    stopped(workspace, FULL)
    (checkpoints(workspace)[4].parent / "checkpoint-99").write_text("notes")
    trained, _ = train(workspace, FULL)
    assert trained.files == finished(published, FULL).files


class Touch(Heard):
    """At a step makes a file, or sends a signal, that asks for a checkpoint; stops at another step."""

    def __init__(self, ask: Any, step: int, stop: int = 5) -> None:
        super().__init__()
        self._ask, self._step, self._stop = ask, step, stop

    def at(self, task: Task) -> None:
        if task.done == self._step - 1:
            self._ask()
        if task.done == self._stop - 1:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.shows("dynamic_checkpoint.enabled", "dynamic_checkpoint.check_interval", "dynamic_checkpoint.trigger_file_path")
@pytest.mark.parametrize(("settings", "name", "steps"), [
    ({}, "checkpoint.save", [5]),
    ({"check_interval": 1}, "checkpoint.save", [1, 5]),
    ({"check_interval": 3, "trigger_file_path": "now"}, "now", [3, 5]),
    ({"check_interval": 3, "trigger_file_path": "now"}, "checkpoint.save", [5]),
])  # fmt: skip
def test_a_file_asks_for_a_checkpoint(workspace: Path, settings: dict[str, Any], name: str, steps: list[int]) -> None:
    options = EVERY | {"save_strategy": "no", "dynamic_checkpoint": {"enabled": True} | settings}
    trigger = workspace / "data" / "metrics" / "train" / name
    heard = Touch(trigger.touch, 1)
    with pytest.raises(Interrupted):
        train(workspace, options, progress=heard)
    assert sorted(checkpoints(workspace)) == steps
    assert trigger.exists() == (len(steps) == 1)
    assert str(os.getpid()) in heard.said[0] and (len(heard.said) == 2) == (len(steps) == 2)


@pytest.mark.shows("dynamic_checkpoint.enabled")
def test_a_signal_asks_for_a_checkpoint(published: Path, workspace: Path) -> None:
    options = EVERY | {"save_strategy": "no", "dynamic_checkpoint": {"enabled": True}}
    before = signal.getsignal(signal.SIGUSR1)
    with pytest.raises(Interrupted):
        train(workspace, options, progress=Touch(lambda: os.kill(os.getpid(), signal.SIGUSR1), 3))
    assert sorted(checkpoints(workspace)) == [3, 5] and signal.getsignal(signal.SIGUSR1) == before
    shutil.rmtree(checkpoints(workspace)[5])
    assert train(workspace, options, progress=Heard())[0].files == finished(published, EVERY | {"save_strategy": "no"}).files


class SmallDisk(Heard):
    """From a step on no file may grow beyond 300 kB; the tiny model has more."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self._step = step

    def at(self, task: Task) -> None:
        if task.done == self._step:
            resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def test_a_full_disk_leaves_the_last_checkpoint(published: Path, workspace: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(RegrowError, match=r"of step 4 could not be written \(.*\); the one of step 2 is still there") as caught:
            train(workspace, FULL, progress=SmallDisk(3))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in caught.value.message and sorted(checkpoints(workspace)) == [2]
    assert train(workspace, FULL)[0].files == finished(published, FULL).files


def test_a_run_killed_after_its_last_step_has_nothing_left_to_train(published: Path, workspace: Path, monkeypatch: Any) -> None:
    """In the middle of an epoch, where transformers would go on."""
    options = FULL | {"max_steps": 3}
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr("stages.train.session._write", interrupt)
        train(workspace, options)
    heard = Heard()
    trained, metrics = train(workspace, options, progress=heard)
    assert heard.said == ["Continuing from the checkpoint of step 3 of 3."] and metrics["steps"] == 3
    assert trained.files == finished(published, options).files


def interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def test_a_checkpoint_that_goes_while_it_is_looked_at_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several processes the leading one removes what is damaged while others may still read it."""
    folder = tmp_path / "checkpoint-4"
    folder.mkdir()
    (folder / "weights").write_bytes(b"1")
    mark_complete(folder)
    assert is_complete(folder)

    def slowly(path: Path) -> str:
        shutil.rmtree(folder)
        return digest_file(path)

    monkeypatch.setattr(complete, "digest_file", slowly)
    assert not is_complete(folder)

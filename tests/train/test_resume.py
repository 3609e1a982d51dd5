"""A run that was killed, stopped or left half a checkpoint ends with the bytes of one that was not."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import Interrupted
from pipeline.progress import Task
from stages.train.checkpoints.complete import MARKER, mark_complete
from tests.train.workspace import FULL, LORA, Heard, SignalAt, finished, train

ROOT = Path(__file__).parents[2]


def checkpoints(workspace: Path) -> dict[int, Path]:
    folders = (workspace / ".regrow" / "train" / "checkpoints").glob("checkpoint-*")
    return {int(folder.name.split("-")[1]): folder for folder in folders}


LONG: dict[str, Any] = {"num_epochs": 6, "save_steps": 3, "eval_steps": 4}
"""Twelve steps, two an epoch: checkpoints within epochs and at their ends."""
KILLED: dict[str, dict[str, Any]] = {
    "full": FULL | LONG,
    "lora": LORA | LONG | {"lora_dropout": 0},
    "lora with dropout": LORA | LONG | {"load_best_model_at_end": True, "save_steps": 4},
}


@pytest.fixture(scope="module")
def remains(held_out: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What runs left that were killed at five random steps, one after the other."""
    folder, rng = tmp_path_factory.mktemp("killed"), random.Random(6)
    places = {name: folder / str(number) for number, name in enumerate(KILLED)}
    for place in places.values():
        shutil.copytree(held_out / "data", place / "data")
    jobs = [(str(places[name]), options, sorted(rng.sample(range(1, 13), 5))) for name, options in KILLED.items()]
    command = [sys.executable, "-m", "tests.train.killed", json.dumps(jobs)]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True, timeout=300)
    return places


@pytest.mark.slow
@pytest.mark.parametrize("name", KILLED)
def test_a_run_killed_five_times_ends_with_the_same_bytes(held_out: Path, remains: dict[str, Path], name: str) -> None:
    """In two processes and two directories: killed and resumed in the one, undisturbed in the other."""
    heard = Heard()
    resumed, _ = train(remains[name], KILLED[name], progress=heard)
    assert heard.said[0].startswith("Continuing from the checkpoint of step ")
    assert resumed.files == finished(held_out, KILLED[name]).files


@pytest.mark.parametrize("options", [FULL, LORA | {"logging_steps": 4}], ids=["full", "lora"])
@pytest.mark.parametrize("step", [1, 3, 4])
def test_a_stopped_run_ends_with_the_same_bytes(published: Path, workspace: Path, options: dict[str, Any], step: int) -> None:
    """Stops between checkpoints, within an epoch and at its end, and in the middle of a window of log.csv."""
    expected = finished(published, options).files
    with pytest.raises(Interrupted, match=f"step {step} of 6") as caught:
        train(workspace, options, progress=SignalAt(step, signal.SIGTERM))
    assert caught.value.exit_code == 75
    assert not (workspace / ".regrow" / "train" / "trained").exists()
    heard = Heard()
    resumed, metrics = train(workspace, options, progress=heard)
    assert resumed.files == expected
    assert heard.said == [f"Continuing from the checkpoint of step {step} of 6."]
    assert heard.tasks[0].done == metrics["steps"] == 6


def test_ctrl_c_stops_politely_and_handlers_come_back(workspace: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted):
        train(workspace, FULL, progress=SignalAt(2, signal.SIGINT))
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


class Signals(Heard):
    """Sends this process several signals in the middle of the fourth step."""

    def __init__(self, *numbers: signal.Signals) -> None:
        super().__init__()
        self._numbers = numbers

    def at(self, task: Task) -> None:
        if task.done == 3:
            for number in self._numbers:
                os.kill(os.getpid(), number)
            self._numbers = ()


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_one_stop_may_come_as_several_signals(published: Path, workspace: Path, second: signal.Signals) -> None:
    """As from `timeout` or systemd: to every process, and once more from the kernel when DVC is dead."""
    with pytest.raises(Interrupted, match="step 4 of 6"):
        train(workspace, FULL, progress=Signals(signal.SIGTERM, second, second))
    assert train(workspace, FULL)[0].files == finished(published, FULL).files


class StopsInLoading(Heard):
    """Sends this process a signal before the first step: what is said comes before."""

    def say(self, message: str) -> None:
        if "nothing is recorded" in message:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_stop_before_the_first_step_is_told(published: Path, workspace: Path) -> None:
    """Where no step is under way either: while the model is loaded or written."""
    options = FULL | {"profiler_steps": 1, "profiler_steps_start": 9}
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="stopped where it could save nothing since its newest checkpoint") as caught:
        train(workspace, options, progress=StopsInLoading())
    assert caught.value.exit_code == 75 and not (workspace / "data" / "trained").exists()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    trained, _ = train(workspace, FULL)
    assert trained.files == finished(published, FULL).files


def test_a_second_request_ends_at_once(published: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(Interrupted, match="could save nothing"):
        patch.setattr("stages.train.loop.stopping._ONE_REQUEST", 0)
        train(workspace, FULL, progress=Signals(signal.SIGTERM, signal.SIGINT))
    assert sorted(checkpoints(workspace)) == [2]
    assert train(workspace, FULL)[0].files == finished(published, FULL).files


def test_a_stop_at_the_last_step_finishes(workspace: Path) -> None:
    _, metrics = train(workspace, FULL, progress=SignalAt(6, signal.SIGTERM))
    assert metrics["steps"] == 6


def test_killed_while_its_checkpoints_are_removed_it_is_done_again(held_out: Path, measured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest is still there, and the best one, without which it is worth nothing, is gone."""
    options = FULL | {"learning_rate": 0.5, "warmup_steps": 0, "optimizer": "sgd", "eval_steps": 2, "load_best_model_at_end": True}

    def remove_half(folder: Path, **_: Any) -> None:
        if found := sorted(folder.rglob("checkpoint-*"))[:-1]:
            for checkpoint in found:
                shutil.rmtree(checkpoint)
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("pipeline.runner.shutil.rmtree", remove_half)
        train(measured, options)
    trained, metrics = train(measured, options)
    assert metrics["best_step"] == 4 and trained.files == finished(held_out, options).files


@pytest.mark.parametrize("damage", ["unmarked", "cut", "missing", "flipped"])
def test_half_a_checkpoint_is_passed_over_and_removed(published: Path, workspace: Path, damage: str) -> None:
    expected = finished(published, FULL).files
    with pytest.raises(Interrupted):
        train(workspace, FULL, progress=SignalAt(5, signal.SIGTERM))
    newest = checkpoints(workspace)[5]
    if damage == "unmarked":
        (newest / MARKER).unlink()
    elif damage == "cut":
        os.truncate(newest / "optimizer.pt", 100)
    elif damage == "flipped":
        content = bytearray((newest / "optimizer.pt").read_bytes())
        content[len(content) // 2] ^= 1
        (newest / "optimizer.pt").write_bytes(content)
    else:
        (newest / "model.safetensors").unlink()
    heard = SignalAt(5, signal.SIGTERM)
    with pytest.raises(Interrupted):
        train(workspace, FULL, progress=heard)
    assert heard.said == ["Continuing from the checkpoint of step 4 of 6."]
    assert train(workspace, FULL)[0].files == expected


@pytest.mark.shows("save_total_limit")
def test_only_so_many_checkpoints_are_kept(workspace: Path) -> None:
    with pytest.raises(Interrupted):
        train(workspace, FULL | {"save_steps": 1, "save_total_limit": 2}, progress=SignalAt(5, signal.SIGTERM))
    assert sorted(checkpoints(workspace)) == [4, 5]


class Bomb:
    """Unpickling this makes a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self._path,)


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"])
def test_a_checkpoint_runs_no_code(workspace: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(Interrupted):
        train(workspace, FULL, progress=SignalAt(3, signal.SIGTERM))
    checkpoint = checkpoints(workspace)[3]
    (checkpoint / name).write_bytes(pickle.dumps(Bomb(tmp_path / "exploded"), protocol=2))
    mark_complete(checkpoint)
    if name == "training_args.bin":
        train(workspace, FULL)
    else:
        with pytest.raises(pickle.UnpicklingError):
            train(workspace, FULL)
    assert not (tmp_path / "exploded").exists()

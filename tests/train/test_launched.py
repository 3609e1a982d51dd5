"""`train.num_processes`: several processes train together, inside one command."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pipeline.errors import Interrupted, RegrowError
from tests.train.workspace import FULL, LORA, build, make_rows, read_log, train

TWO = {"train": {"num_processes": 2}, "num_epochs": 2, "learning_rate": 1e-2, "logging_steps": 1, "ddp": True}


def seven_bins(folder: Path) -> Path:
    """The last step of an epoch has an empty place; three bins are held out."""
    bins = [[2 * number, 2 * number + 1] for number in range(7)]
    return build(folder, make_rows(18), bins, [[14], [15, 16], [17]])


def members() -> list[int]:
    """Processes that this one started to train."""
    return [process.pid for process in multiprocessing.active_children() if process.pid is not None]


@pytest.mark.slow
@pytest.mark.shows("train.num_processes")
def test_two_processes_train_what_one_trains(tmp_path: Path) -> None:
    """One of two rows to a micro-batch more, two accumulated: the same global batch, and the same weights but for rounding."""
    alone, expected = train(seven_bins(tmp_path / "one"), {**TWO, "train": {}, "micro_batch_size": 4, "eval_steps": 1})
    together, metrics = train(
        seven_bins(tmp_path / "two"), {**TWO, "micro_batch_size": 1, "gradient_accumulation_steps": 2, "eval_steps": 1}
    )
    assert {name: metrics[name] for name in ("steps", "tokens", "trained_tokens")} == {
        name: expected[name] for name in ("steps", "tokens", "trained_tokens")
    }
    for name in ("log.csv", "eval.csv"):
        column = "loss" if name == "log.csv" else "eval_loss"
        losses = [[line[column] for line in read_log(trained, name)] for trained in (alone, together)]
        assert losses[1] == pytest.approx(losses[0], abs=1e-5)
    weights = load_file(together.path / "model.safetensors")
    for name, weight in load_file(alone.path / "model.safetensors").items():
        torch.testing.assert_close(weights[name], weight, atol=1e-4, rtol=1e-3)
    assert together.content["steps"] == metrics["steps"] and members() == []


@pytest.mark.slow
@pytest.mark.shows("ddp", "ddp_timeout", "ddp_bucket_cap_mb", "ddp_broadcast_buffers", "ddp_find_unused_parameters")
def test_a_stop_leaves_a_checkpoint_that_ends_in_the_same_bytes(tmp_path: Path) -> None:
    """SIGTERM to the one process that DVC knows; with every option of DDP on."""
    options: dict[str, Any] = LORA | TWO | {"save_steps": 100, "num_epochs": 8}
    options |= {"ddp_timeout": 60, "ddp_bucket_cap_mb": 1, "ddp_broadcast_buffers": False, "ddp_find_unused_parameters": True}
    whole, _ = train(seven_bins(tmp_path / "whole"), options)
    workspace = seven_bins(tmp_path / "stopped")
    stop_soon(workspace, signal.SIGTERM)
    with pytest.raises(Interrupted, match="saved a checkpoint after step"):
        train(workspace, options | {"include_tkps": True})
    assert members() == [] and not (workspace / "data" / "trained").exists()
    resumed, _ = train(workspace, options | {"include_tkps": True})
    assert resumed.files == whole.files


def stop_soon(workspace: Path, number: signal.Signals) -> None:
    """Send this process a signal when the others have trained for some steps."""
    speed = workspace / "data" / "metrics" / "train" / "speed.csv"

    def stop() -> None:
        while not (speed.exists() and len(speed.read_text().splitlines()) > 3):
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    threading.Thread(target=stop, daemon=True).start()


@pytest.mark.slow
def test_an_interrupt_stops_all_without_a_terminal(tmp_path: Path) -> None:
    """A terminal sends Ctrl-C to every process; `kill -INT` reaches one."""
    workspace = seven_bins(tmp_path)
    stop_soon(workspace, signal.SIGINT)
    with pytest.raises(Interrupted, match="saved a checkpoint after step"):
        train(workspace, FULL | TWO | {"num_epochs": 200, "save_steps": 1000, "include_tkps": True})
    assert members() == []


@pytest.mark.slow
def test_what_one_raises_ends_all(tmp_path: Path) -> None:
    with pytest.raises(RegrowError, match="loss_watchdog_threshold"):
        train(seven_bins(tmp_path), FULL | TWO | {"loss_watchdog_threshold": 0.001, "loss_watchdog_patience": 1})
    assert members() == []


@pytest.mark.slow
def test_one_that_dies_ends_all(tmp_path: Path) -> None:
    workspace = seven_bins(tmp_path)
    speed = workspace / "data" / "metrics" / "train" / "speed.csv"

    def kill() -> None:
        while not speed.exists():
            time.sleep(0.02)
        os.kill(max(members()), signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
    with pytest.raises(RegrowError, match=r"Process \d of the 2 that train together died"):
        train(workspace, FULL | TWO | {"num_epochs": 200, "include_tkps": True})
    assert members() == []


def test_each_process_takes_a_gpu(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(RegrowError, match=r"train.num_processes: 2, and there are 1 GPUs"):
        train(workspace, FULL | TWO)


def test_the_gpu_is_taken_before_the_model_is_loaded(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """bitsandbytes loads onto the current GPU, which is the first one in every process until somebody says otherwise."""
    happened: list[Any] = []

    class Loaded(Exception):
        pass

    def load(job: Any) -> None:
        happened.append("loaded")
        raise Loaded

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "NVIDIA H200")
    monkeypatch.setattr("torch.cuda.set_device", happened.append)
    monkeypatch.setattr("stages.train.session.train", load)
    for name, value in {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "FLASH_ATTENTION_DETERMINISTIC": "1", "RANK": "5", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    for processes in ("1", "8"):
        monkeypatch.setenv("WORLD_SIZE", processes)
        with pytest.raises(Loaded):
            train(workspace, FULL)
    assert happened == ["loaded", 1, "loaded"]

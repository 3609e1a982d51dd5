"""A run whose answers are random ends with the same bytes: run again, stopped between two updates of a batch, stopped anywhere."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import Interrupted
from tests.train.online.workspace import REWARDS, grpo
from tests.train.workspace import Heard, SignalAt, finished, train

SIX = {"max_steps": 6, "logging_steps": 4}
PLAIN = grpo(**SIX)
REUSED = grpo(**SIX, trl={"num_iterations": 3, "beta": 0.1, "loss_type": "bnpo"})
FOLLOWED = grpo(**SIX, trl={"beta": 0.2, "sync_ref_model": True, "ref_model_sync_steps": 2, "ref_model_mixup_alpha": 0.5})
ADAPTED = grpo(**SIX, adapter="lora", lora_r=4, lora_dropout=0.2, lora_target_linear=True, trl={"beta": 0.1, "num_iterations": 2})
RUNS: dict[str, tuple[dict[str, Any], int]] = {
    "plain": (PLAIN, 3),
    "answers that are still to be learned from": (REUSED, 2),
    "a reference that follows": (FOLLOWED, 5),
    "an adapter with dropout": (ADAPTED, 3),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_stopped_run_ends_with_the_same_bytes(prompts: Path, asking: Path, name: str) -> None:
    options, step = RUNS[name]
    with pytest.raises(Interrupted):
        train(asking, options, progress=SignalAt(step, signal.SIGTERM))
    assert train(asking, options)[0].files == finished(prompts, options).files


def test_a_killed_run_goes_back_to_its_last_checkpoint(prompts: Path, asking: Path) -> None:
    """Which was written in the middle of a batch of answers."""
    options = REUSED | {"save_steps": 2}
    with pytest.raises(Interrupted):
        train(asking, options, progress=SignalAt(5, signal.SIGTERM))
    shutil.rmtree(asking / ".regrow" / "train" / "checkpoints" / "checkpoint-5")
    heard = Heard()
    assert train(asking, options, progress=heard)[0].files == finished(prompts, options).files
    assert heard.said[0] == "Continuing from the checkpoint of step 4 of 6."


def test_a_repeated_run_ends_with_the_same_bytes(prompts: Path, asking: Path) -> None:
    assert train(asking, REUSED)[0].files == finished(prompts, REUSED).files


def test_an_epoch_ends_where_no_batch_is_full(prompts: Path, asking: Path) -> None:
    """Three prompts a step of sixteen: five steps an epoch, and one prompt is left out."""
    options = grpo(num_epochs=2, max_steps=None, micro_batch_size=6, save_steps=4)
    options = {name: value for name, value in options.items() if value is not None}
    with pytest.raises(Interrupted):
        train(asking, options, progress=SignalAt(5, signal.SIGTERM))
    resumed, metrics = train(asking, options)
    assert metrics["steps"] == 10 and metrics["epochs"] == 2
    assert resumed.files == finished(prompts, options).files


def test_evaluations_change_nothing(some_held_out: Path, answered: Path) -> None:
    """Held-out answers are drawn from numbers of their own, so that a stop may fall before or after them."""
    options = grpo(**SIX, eval_steps=2, trl={"reward_funcs": [f"{REWARDS}.digits", f"{REWARDS}.length"]})
    with pytest.raises(Interrupted):
        train(answered, options, progress=SignalAt(3, signal.SIGTERM))
    resumed = train(answered, options)[0]
    assert resumed.files == finished(some_held_out, options).files
    without = {name: value for name, value in options.items() if name != "eval_steps"}
    undisturbed = finished(some_held_out, without).files
    assert {name: resumed.files[name] for name in ("model.safetensors", "log.csv", "completions.jsonl")} == {
        name: undisturbed[name] for name in ("model.safetensors", "log.csv", "completions.jsonl")
    }

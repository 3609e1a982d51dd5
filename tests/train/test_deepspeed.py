"""`deepspeed`: ZeRO trains what DDP trains, goes on after a kill to the same bytes, and leaves plain models."""

from __future__ import annotations

import os
import signal
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pipeline.errors import Interrupted, RegrowError
from pipeline.options.views import TrainOptions
from stages.merge.sharded.zero import ZeroShards
from stages.train.arguments import training_arguments
from stages.train.launch import Launch
from stages.train.loop.schedule import plan_schedule
from stages.train.sharding.placing import at_its_kernels
from stages.train.sharding.settings import prepare_deepspeed, zero_settings
from tests.train.ended import RUN, Ended, end_all
from tests.train.test_launched import members, seven_bins
from tests.train.workspace import LORA, train

needs_deepspeed = pytest.mark.skipif(find_spec("deepspeed") is None, reason="pip install 'regrow[deepspeed]'")


def zero(stage: int, **settings: Any) -> dict[str, Any]:
    """Every parameter of a tiny model is small, and kept whole unless told otherwise."""
    threshold = {"stage3_param_persistence_threshold": 0} if stage == 3 else {}
    return {"deepspeed": {"zero_optimization": {"stage": stage, **threshold, **settings}}}


RUNS: dict[str, dict[str, Any]] = {
    "ddp": {},
    "lora": LORA | RUN,
    **{f"zero {stage}": zero(stage) for stage in (1, 2, 3)},
    "lora zero 3": LORA | RUN | zero(3),
    "best": {"load_best_model_at_end": True, "save_steps": 1},
    "best zero 3": {"load_best_model_at_end": True, "save_steps": 1, **zero(3)},
    "offloaded": zero(3, offload_param={"device": "cpu"}, offload_optimizer={"device": "cpu"}),
    "bf16": {"bf16": True},
    "bf16 zero 3": {"bf16": True, **zero(3)},
}
KILLED = ("zero 1", "zero 2", "zero 3", "lora zero 3")


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ended]:
    """``… stopped`` was killed in the middle of its last step."""
    return end_all(tmp_path_factory.mktemp("deepspeed"), RUNS, dict.fromkeys(KILLED, ("SIGKILL", 4)))


@needs_deepspeed
@pytest.mark.slow
@pytest.mark.shows("deepspeed")
@pytest.mark.parametrize(("name", "plain", "within"), [
    ("zero 1", "ddp", 1e-5), ("zero 2", "ddp", 1e-5), ("zero 3", "ddp", 1e-5), ("offloaded", "ddp", 1e-5),
    ("lora zero 3", "lora", 1e-5), ("best zero 3", "best", 1e-5), ("bf16 zero 3", "bf16", 5e-3),
])  # fmt: skip
def test_it_trains_what_ddp_trains(ended: dict[str, Ended], name: str, plain: str, within: float) -> None:
    """Losses, rates and gradient norms of every step, evaluations, and the weights, whole and in float32."""
    for table in ("log.csv", "eval.csv"):
        for found, expected in zip(ended[name].table(table), ended[plain].table(table), strict=True):
            assert found == pytest.approx(expected, rel=within)
    weights, expected_weights = ended[name].weights, ended[plain].weights
    assert weights.keys() == expected_weights.keys()
    for key, weight in expected_weights.items():
        torch.testing.assert_close(weights[key], weight, atol=within, rtol=within)


@needs_deepspeed
@pytest.mark.slow
@pytest.mark.parametrize("name", KILLED)
def test_a_killed_run_ends_in_the_same_bytes(ended: dict[str, Ended], name: str) -> None:
    assert ended[f"{name} stopped"].files == ended[name].files


@needs_deepspeed
@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_checkpoint_holds_a_model_and_its_shards(ended: dict[str, Ended], stage: int) -> None:
    """The last one is that of the last step: `regrow merge --sharded` reads from its shards what was given out."""
    run = ended[f"zero {stage}"]
    checkpoint = run.folder / "scratch" / "checkpoints" / "checkpoint-4"
    weights = run.weights
    assert load_file(checkpoint / "model.safetensors").keys() >= weights.keys()
    shards = ZeroShards(checkpoint / "global_step4")
    for name, weight in weights.items():
        assert torch.equal(shards.read(name), weight)


@needs_deepspeed
@pytest.mark.slow
def test_a_stop_leaves_a_checkpoint_that_ends_in_the_same_bytes(tmp_path: Path) -> None:
    """SIGTERM to the one process that DVC knows, in the middle of a run that the stage starts by itself."""
    options = RUN | zero(3) | {"train": {"num_processes": 2}, "num_epochs": 8, "save_steps": 100, "include_tkps": True}
    whole, _ = train(seven_bins(tmp_path / "whole"), options)
    workspace = seven_bins(tmp_path / "stopped")
    speed = workspace / "data" / "metrics" / "train" / "speed.csv"

    def stop() -> None:
        while not (speed.exists() and len(speed.read_text().splitlines()) > 2):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop, daemon=True).start()
    with pytest.raises(Interrupted, match="saved a checkpoint after step"):
        train(workspace, options)
    assert members() == [] and not (workspace / "data" / "trained").exists()
    resumed, _ = train(workspace, options)
    assert resumed.files == whole.files


def view(**options: Any) -> TrainOptions:
    return TrainOptions.model_validate({"learning_rate": 1e-3} | options)


def test_what_other_options_decide_is_told() -> None:
    options = view(micro_batch_size=3, gradient_accumulation_steps=2, max_grad_norm=0.5, **zero(3, overlap_comm=True))
    told = zero_settings(options, "bf16", 4)
    assert told["zero_optimization"] == {
        "stage": 3,
        "overlap_comm": True,
        "stage3_param_persistence_threshold": 0,
        "stage3_gather_16bit_weights_on_model_save": True,
    }
    sizes = ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "train_batch_size", "gradient_clipping")
    assert [told[name] for name in sizes] == [3, 2, 24, 0.5]
    assert told["torch_autocast"]["enabled"] and not zero_settings(options, "fp32", 4)["torch_autocast"]["enabled"]


@needs_deepspeed
def test_transformers_accepts_what_it_is_told(tmp_path: Path) -> None:
    options = view(bf16=True, **zero(2))
    arguments = training_arguments(options, plan_schedule(options, 10, 1), "bf16", Launch(0, 1), tmp_path)
    assert arguments.deepspeed_plugin.zero_stage == 2 and not arguments.bf16


@pytest.mark.parametrize(("attention", "moves"), [("flash_attention_2", ["meta", "cpu"]), ("sdpa", [])])
def test_kernels_of_a_gpu_find_the_weights_there(attention: str, moves: list[str]) -> None:
    moved: list[str] = []

    class Model(torch.nn.Linear):
        device = torch.device("cpu")

        def to(self, place: Any) -> Any:  # type: ignore[override]
            moved.append(str(place))

    with at_its_kernels(Model(1, 1), view(attn_implementation=attention, **zero(3)), torch.device("meta")):
        assert moved == moves[:1]
    assert moved == moves


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.train.packages.find_spec", lambda name: None)
    with pytest.raises(RegrowError, match="deepspeed") as caught:
        prepare_deepspeed(view(**zero(2)), "fp32")
    assert "pip install 'regrow[deepspeed]'" in str(caught.value)


@pytest.mark.parametrize(("enabled", "precision"), [(True, "fp32"), (False, "bf16")])
def test_numbers_that_the_machine_decided_are_compared(monkeypatch: pytest.MonkeyPatch, enabled: bool, precision: Any) -> None:
    monkeypatch.setattr("stages.train.sharding.settings.require", lambda *_: None)
    asked = {"deepspeed": zero(2)["deepspeed"] | {"bf16": {"enabled": enabled}}}
    with pytest.raises(RegrowError, match=rf"bf16.enabled is {str(enabled).lower()}, and with bf16: auto this run computes in {precision}"):
        prepare_deepspeed(view(**asked), precision)

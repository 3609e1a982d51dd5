"""`fsdp_config`: FSDP 2 trains what DDP trains, goes on after a stop to the same bytes, and leaves plain models."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pipeline.errors import RegrowError
from stages.train.checkpoints.complete import is_complete
from stages.train.sharding.shards import clip_gradients
from tests.train.ended import RUN, Ended, end_all
from tests.train.workspace import LORA

HALVED = LORA | RUN | {"bf16": True}
"""Frozen layers in bfloat16 beside factors in float32."""
BEST: dict[str, Any] = {"load_best_model_at_end": True, "save_steps": 1, "num_epochs": 1}


def fsdp(**settings: Any) -> dict[str, Any]:
    return {"fsdp_version": 2, "fsdp_config": settings}


RUNS: dict[str, dict[str, Any]] = {
    "ddp": {},
    "ddp lora": HALVED,
    "ddp best": BEST,
    "fsdp": fsdp(),
    "fsdp lora": HALVED | fsdp(mixed_precision_policy="bf16"),
    "fsdp best": BEST
    | {"gradient_checkpointing": True, "save_only_model": True}
    | fsdp(
        offload_params=True,
        cpu_offload_pin_memory=False,
        reshard_after_forward=False,
        transformer_layer_cls_to_wrap="LlamaDecoderLayer",
        auto_wrap_policy="TRANSFORMER_BASED_WRAP",
        state_dict_type="FULL_STATE_DICT",
        final_state_dict_type="FULL_STATE_DICT",
        use_orig_params=True,
        sync_module_states=True,
        cpu_ram_efficient_loading=True,
    ),
    "no such layer": fsdp(transformer_layer_cls_to_wrap="QwenLayer"),
    "two kinds of numbers": LORA | RUN | {"bf16": "full", "lora_modules_to_save": ["input_layernorm"]} | fsdp(),
}
STOPS = {"fsdp": ("SIGKILL", 4), "fsdp lora": ("SIGTERM", 3)}


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ended]:
    return end_all(tmp_path_factory.mktemp("fsdp"), RUNS, STOPS)


@pytest.mark.slow
@pytest.mark.shows(
    "fsdp_version",
    "fsdp_config.offload_params",
    "fsdp_config.cpu_offload_pin_memory",
    "fsdp_config.reshard_after_forward",
    "fsdp_config.auto_wrap_policy",
    "fsdp_config.state_dict_type",
    "fsdp_config.final_state_dict_type",
    "fsdp_config.use_orig_params",
    "fsdp_config.sync_module_states",
    "fsdp_config.cpu_ram_efficient_loading",
    "fsdp_config.mixed_precision_policy",
)
@pytest.mark.parametrize(("kind", "within"), [("", 2e-5), (" lora", 1e-4), (" best", 2e-5)])
def test_it_trains_what_ddp_trains(ended: dict[str, Ended], kind: str, within: float) -> None:
    """Losses, rates and gradient norms of every step, evaluations, configuration, and the weights: whole, of the same numbers."""
    found, expected = ended[f"fsdp{kind}"], ended[f"ddp{kind}"]
    for table in ("log.csv", "eval.csv"):
        for line, other in zip(found.table(table), expected.table(table), strict=True):
            assert line == pytest.approx(other, rel=within)
    assert found.files.keys() == expected.files.keys()
    for name in {"config.json", "adapter_config.json"} & found.files.keys():
        assert found.files[name] == expected.files[name]
    weights = found.weights
    assert weights.keys() == expected.weights.keys()
    for key, weight in expected.weights.items():
        torch.testing.assert_close(weights[key], weight, atol=within, rtol=within)


@pytest.mark.slow
@pytest.mark.parametrize("name", STOPS)
def test_a_stopped_run_ends_in_the_same_bytes(ended: dict[str, Ended], name: str) -> None:
    """Killed after a checkpoint of two steps; asked to stop in the third, which leaves one of three."""
    assert ended[f"{name} stopped"].files == ended[name].files


@pytest.mark.slow
def test_a_checkpoint_holds_a_model_and_every_shard(ended: dict[str, Ended]) -> None:
    run = ended["fsdp"]
    checkpoint = run.folder / "scratch" / "checkpoints" / "checkpoint-4"
    whole = load_file(checkpoint / "model.safetensors")
    for name, weight in run.weights.items():
        assert torch.equal(whole[name], weight)
    halves = [torch.load(checkpoint / "shards" / f"weights-{rank}.pt", weights_only=True) for rank in (0, 1)]
    for name, weight in whole.items():
        assert torch.equal(torch.cat([half[name] for half in halves]), weight)
    assert sum(half["model.norm.weight"].numel() for half in halves) == whole["model.norm.weight"].numel()
    (checkpoint / "shards" / "optimizer-1.pt").write_bytes(b"")
    assert not is_complete(checkpoint)


@pytest.mark.slow
@pytest.mark.shows("fsdp_config.transformer_layer_cls_to_wrap")
@pytest.mark.parametrize(("name", "wrong", "works"), [
    ("no such layer", "transformer_layer_cls_to_wrap: LlamaForCausalLM has no QwenLayer", "Write LlamaDecoderLayer"),
    ("two kinds of numbers", "a LlamaDecoderLayer has trained weights of float32", "Write bf16: true"),
])  # fmt: skip
def test_what_cannot_be_cut_is_told(ended: dict[str, Ended], name: str, wrong: str, works: str) -> None:
    said = (ended[name].folder / "error-0.txt").read_text(encoding="utf-8")
    assert wrong in said and works in said


def test_a_weight_without_a_gradient_is_named() -> None:
    model = torch.nn.Linear(2, 2)
    model.weight.grad = torch.zeros(2, 2)
    with pytest.raises(RegrowError, match="fsdp_config: bias had no part in the loss"):
        clip_gradients(model, 1.0, torch.device("cpu"))

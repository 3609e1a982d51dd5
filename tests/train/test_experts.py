"""Models whose routers are to use all experts evenly: the loss of that is trained, and an evaluation leaves it out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import JetMoeConfig, JetMoeForCausalLM, MixtralConfig, MixtralForCausalLM

from pipeline.errors import RegrowError
from tests.tiny import publish_artifact
from tests.train.workspace import build, make_rows, read_log, train

ROWS = make_rows(5, seed=4)
STEP: dict[str, Any] = {
    "optimizer": "sgd",
    "learning_rate": 1.0,
    "warmup_steps": 0,
    "max_grad_norm": 0,
    "max_steps": 1,
    "gradient_accumulation_steps": 4,
}
SIZES: dict[str, Any] = {"vocab_size": 259, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_key_value_heads": 2}
EXPERTS: dict[str, Any] = {"num_local_experts": 4, "num_experts_per_tok": 2, "output_router_logits": True}


def mixtral(**changes: Any) -> Any:
    torch.manual_seed(0)
    config = MixtralConfig(**SIZES, **EXPERTS, num_attention_heads=4, router_aux_loss_coef=0.5, **changes)
    return MixtralForCausalLM(config)


def jetmoe() -> Any:
    torch.manual_seed(0)
    return JetMoeForCausalLM(JetMoeConfig(**SIZES, **EXPERTS, kv_channels=8, aux_loss_coef=0.5))


def workspace_of(folder: Path, model: Any) -> Path:
    workspace = build(folder, ROWS, [[number] for number in range(4)], [[4]])
    publish_artifact(workspace / "data", "base", model.save_pretrained)
    return workspace


@pytest.mark.parametrize(
    ("make", "options"), [(mixtral, {}), (mixtral, {"chunked_cross_entropy": True, "gradient_checkpointing": True}), (jetmoe, {})]
)
def test_the_loss_of_uneven_experts_is_trained(tmp_path: Path, make: Any, options: dict[str, Any]) -> None:
    """By hand: what transformers computes for each row alone, where it adds that loss itself, weighted by the row's trained tokens."""
    model = make()
    workspace = workspace_of(tmp_path, model)
    total = sum(sum(mask[1:]) for _, mask in ROWS[:4])
    for ids, mask in ROWS[:4]:
        labels = torch.tensor([[token if seen else -100 for token, seen in zip(ids, mask, strict=True)]])
        labels[:, 0] = -100
        (model(input_ids=torch.tensor([ids]), labels=labels, use_cache=False).loss * sum(mask[1:]) / total).backward()
    trained, _ = train(workspace, STEP | options)
    expected = {name: (weight - weight.grad).detach() for name, weight in model.named_parameters() if weight.grad is not None}
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(expected.get(name, weight))
    model.save_pretrained(tmp_path / "expected")
    found, wanted = (load_file(folder / "model.safetensors") for folder in (trained.path, tmp_path / "expected"))
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, atol=2e-6, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}")


def test_an_evaluation_measures_the_text_alone(tmp_path: Path) -> None:
    measured = []
    for name, asked in (("with", True), ("without", False)):
        model = mixtral()
        model.config.output_router_logits = asked
        trained, _ = train(workspace_of(tmp_path / name, model), STEP | {"eval_strategy": "steps", "eval_steps": 1})
        measured.append((read_log(trained, "eval.csv")[0]["eval_loss"], read_log(trained)[0]["loss"]))
    assert measured[0][0] == pytest.approx(measured[1][0], abs=1e-6)
    assert measured[0][1] > measured[1][1] + 0.5  # evenly used experts have a loss of 2, weighted with 0.5


def test_recomputation_that_cuts_routers_off_is_refused(tmp_path: Path) -> None:
    options = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}}
    with pytest.raises(RegrowError, match="no gradient for the routers of MixtralForCausalLM"):
        train(workspace_of(tmp_path, mixtral()), STEP | options)

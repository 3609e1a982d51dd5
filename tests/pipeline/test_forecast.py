"""What `regrow plan` says of a training run: its counts are exact, its memory is of the right size."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.forecast import forecast
from pipeline.forecast.memory import Batch, estimate, layer_sizes
from pipeline.forecast.tensors import adapter_size, read_shapes, unfrozen
from pipeline.forecast.tensors import count as count_numbers
from pipeline.options.views import RecipeOptions, TrainOptions
from stages.train import STAGE as TRAIN
from tests.pipeline.traced import OPTIONS
from tests.tiny import MINIMAL, run_stage, save_model


def view(**options: Any) -> TrainOptions:
    return TrainOptions.model_validate(RecipeOptions.model_validate(MINIMAL | options).model_dump())


def save_other(folder: Path, kind: str) -> None:
    """Tiny models of other architectures."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"vocab_size": 300, "num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64}
    more: dict[str, dict[str, Any]] = {
        "gpt2": {"vocab_size": 300, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
        "qwen2": sizes | {"num_key_value_heads": 2, "tie_word_embeddings": False},
        "gpt_neox": sizes,
    }
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **more[kind])).save_pretrained(folder)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2", "gpt_neox"])
def test_parameters_are_those_of_the_model(tmp_path: Path, kind: str) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    save_model(tmp_path) if kind == "llama" else save_other(tmp_path, kind)
    shapes = read_shapes(tmp_path)
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert count_numbers(shapes) == sum(parameter.numel() for parameter in model.parameters())
    adapted = get_peft_model(model, LoraConfig(r=5, target_modules="all-linear", task_type="CAUSAL_LM", use_dora=kind == "llama"))
    trained = sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
    options = view(adapter="lora", lora_r=5, lora_target_linear=True, peft_use_dora=kind == "llama")
    assert adapter_size(options, shapes, kind) == trained


@pytest.mark.parametrize(
    "options",
    [
        {"lora_target_modules": ["q_proj", "layers.1.mlp.up_proj"]},
        {"lora_target_modules": r".*layers\.0\..*_proj"},
        {},
        {"lora_target_modules": ["q_proj"], "lora_modules_to_save": ["embed_tokens"], "peft_layers_to_transform": [1]},
        {"lora_target_linear": True, "lora_rank_pattern": {"down_proj": 2}, "lora_exclude_modules": ["o_proj"]},
    ],
    ids=["names", "pattern", "usual", "saved whole", "ranks"],
)
def test_adapters_count_as_train_makes_them(tmp_path: Path, options: dict[str, Any]) -> None:
    from stages.train.model.build import build_model

    save_model(tmp_path, tie_word_embeddings=False)
    asked = view(adapter="lora", lora_r=3, **options)
    model = build_model(tmp_path, asked)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert adapter_size(asked, read_shapes(tmp_path), "llama") == trained


def test_of_unfrozen_parameters_only_those_count(tmp_path: Path) -> None:
    save_model(tmp_path)
    shapes = read_shapes(tmp_path)
    assert unfrozen(view(), shapes) == count_numbers(shapes)
    some = unfrozen(view(unfrozen_parameters=[r"model\.layers\.1\."]), shapes)
    assert some == count_numbers({name: shape for name, shape in shapes.items() if name.startswith("model.layers.1.")}) > 0


@pytest.mark.parametrize("gradient_checkpointing", [False, True])
def test_activations_are_what_the_backward_pass_waits_for(tmp_path: Path, gradient_checkpointing: bool) -> None:
    """torch tells of every tensor that it keeps; weights among them are no activations."""
    import torch
    from transformers import AutoModelForCausalLM

    save_model(tmp_path, num_hidden_layers=8, hidden_size=128, intermediate_size=352, num_key_value_heads=4)
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path).train()
    model.config.use_cache = False
    if gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}
    alive: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(input_ids=torch.arange(3, 203)[None], logits_to_keep=1)
    config = json.loads((tmp_path / "config.json").read_text())
    options = view(gradient_checkpointing=gradient_checkpointing)
    batch = Batch(1, 200, 0, 1, packed=False)
    one_layer = estimate(view(), config, {}, batch, half=False).activations / 8
    measured = sum(kept.values()) + (one_layer if gradient_checkpointing else 0)  # which is made again in the backward pass
    assert 0.8 < estimate(options, config, {}, batch, half=False).activations / measured < 1.25


def test_the_parts_follow_the_options(tmp_path: Path) -> None:
    save_model(tmp_path)
    config, shapes = json.loads((tmp_path / "config.json").read_text()), read_shapes(tmp_path)
    numbers = count_numbers(shapes)
    batch = Batch(2, 100, 50, 1, packed=True)

    def memory(**options: Any) -> Any:
        return estimate(view(**options), config, shapes, batch, half=False)

    full = memory()
    assert (full.weights, full.gradients, full.optimizer, full.logits) == (4 * numbers, 4 * numbers, 8 * numbers, 12 * 259 * 50)
    assert memory(optimizer="sgd").optimizer == 0 and memory(optimizer="adagrad").optimizer == 4 * numbers
    adapter = memory(adapter="lora", lora_r=4, lora_target_linear=True)
    assert adapter.gradients == 4 * adapter.trained and adapter.optimizer == 8 * adapter.trained < full.optimizer / 4
    assert memory(adapter="lora", lora_target_linear=True, lora_dropout=0.1).activations > adapter.activations
    halved = estimate(view(), config, shapes, batch, half=True)
    assert halved.activations - 2 * 100**2 == (full.activations - 2 * 100**2) / 2 and halved.weights == full.weights
    assert estimate(view(), config, shapes, Batch(2, 100, 50, 4, packed=True), half=False).total > full.total


def test_sizes_are_read_under_other_names() -> None:
    sizes = layer_sizes({"n_embd": 32, "n_layer": 3, "n_head": 4, "vocab_size": 10})
    assert (sizes.layers, sizes.hidden, sizes.heads, sizes.inner) == (3, 32, 32, 128)
    experts = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 9, "head_dim": 16}
    assert layer_sizes({"text_config": experts | {"moe_intermediate_size": 5, "num_experts_per_tok": 3}}).inner == 15
    assert layer_sizes(experts | {"intermediate_size": 7}).heads == 32


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_steps": 5},
        {"max_steps": 2, "seed": 3},
        {"curriculum_sampling": True, "max_steps": 1},
        {"num_epochs": 3, "micro_batch_size": 2, "dataloader_drop_last": True, "gradient_accumulation_steps": 1},
        {"micro_batch_size": 2, "group_by_length": True, "max_steps": 4},
    ],
)
def test_counts_are_those_of_the_run(finished_project: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    """Trained by the plan that is there, whatever pack would make of the options."""
    shutil.copytree(finished_project / "data", tmp_path / "data")
    _, metrics = run_stage(TRAIN, tmp_path, OPTIONS | options)
    lines = list(forecast(tmp_path / "data", view(**OPTIONS | options)))
    assert f" {metrics['steps']:,} steps," in lines[0] and f"; {metrics['epochs']:.4g} epoch" in lines[0]
    assert f"; {metrics['tokens']:,} tokens, {metrics['trained_tokens']:,} of them trained" in lines[1]


def test_memory_is_said(finished_project: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_project / "data", tmp_path / "data")
    text = "\n".join(forecast(tmp_path / "data", view(**OPTIONS)))
    assert "memory, an estimate: " in text and "= weights" not in text and "trained" in text


def test_nothing_is_said_of_a_plan_that_is_not_there(tmp_path: Path, finished_project: Path) -> None:
    assert list(forecast(tmp_path, view())) == []
    shutil.copytree(finished_project / "data", tmp_path / "data")
    manifest = json.loads((tmp_path / "data/packed/manifest.json").read_text())
    manifest["inputs"]["tokens"] = "0" * 64
    (tmp_path / "data/packed/manifest.json").write_text(json.dumps(manifest))
    assert list(forecast(tmp_path / "data", view())) == []

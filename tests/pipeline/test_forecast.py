"""What `regrow plan` says of a training run: its counts are exact, its memory is of the right size."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.forecast import forecast
from pipeline.forecast.activations import Batch
from pipeline.forecast.memory import Memory, estimate
from pipeline.forecast.sharing import of_one_process
from pipeline.forecast.sizes import layer_sizes
from pipeline.forecast.tensors import adapter_size, linear, read_shapes, unfrozen
from pipeline.forecast.tensors import count as count_numbers
from pipeline.options.views import RecipeOptions, TrainOptions
from stages.train import STAGE as TRAIN
from tests.pipeline.traced import OPTIONS
from tests.tiny import MINIMAL, run_stage, save_model
from tests.train.preferences import Row
from tests.train.preferences import build as build_preferences
from tests.train.workspace import build


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
    named = ["model.layers.1.", "model.embed_tokens.weight[3:5]"]
    assert unfrozen(view(unfrozen_parameters=named), {f"model.layers.{number}.x": (2, 2) for number in (0, 1, 10, 11)}) == 4
    assert unfrozen(view(unfrozen_parameters=named[1:]), shapes) == 259 * 64
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
    one_layer = estimate(view(), config, {}, batch, half=False).activations.layer
    measured = sum(kept.values()) + (one_layer if gradient_checkpointing else 0)  # which is made again in the backward pass
    assert 0.8 < estimate(options, config, {}, batch, half=False).activations.waiting / measured < 1.25


def test_the_parts_follow_the_options(tmp_path: Path) -> None:
    save_model(tmp_path)
    config, shapes = json.loads((tmp_path / "config.json").read_text()), read_shapes(tmp_path)
    numbers = count_numbers(shapes)
    batch = Batch(2, 100, 50, 1, packed=True)

    def memory(**options: Any) -> Any:
        return estimate(view(**options), config, shapes, batch, half=False)

    full = memory()
    assert (full.weights, full.gradients, full.optimizer, full.logits) == (4 * numbers, 4 * numbers, 8 * numbers, 12 * 259 * 50)
    assert full.first_gradient == 4 * 259 * 64
    assert memory(optimizer="sgd").optimizer == 0 and memory(optimizer="adagrad").optimizer == 4 * numbers
    adapter = memory(adapter="lora", lora_r=4, lora_target_linear=True)
    assert adapter.gradients == 4 * adapter.trained and adapter.optimizer == 8 * adapter.trained < full.optimizer / 4
    assert estimate(view(), config, shapes, Batch(2, 100, 50, 4, packed=True), half=False).total > full.total


SHAPE: dict[str, Any] = {"hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 4, "num_key_value_heads": 4}
LENGTH, ROWS, STEPS = 80, 2, 2


def peak_of(run: Callable[[], Any]) -> int:
    """Bytes of the tensors that are there at once, by torch's own allocator; those that other threads make are not seen."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        run()
    events: list[Any] = list(profiled.profiler.kineto_results.experimental_event_tree())  # type: ignore[union-attr]
    peak = 0
    while events:
        event = events.pop()
        events.extend(event.children)
        if event.name == "[memory]":
            peak = max(peak, event.typed[1].total_allocated)
    return peak


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"gradient_accumulation_steps": 2},
        {"lisa_n_layers": 1, "lisa_step_interval": 1},
        {"unfrozen_parameters": ["model.layers.[23]."]},
        {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"every_n_layers": 2}},
        {"activation_offloading": "disk"},
        {"tiled_mlp": True},
        {"bf16": True},
        {"adapter": "lora", "lora_r": 4, "lora_target_modules": ["q_proj"]},
        {"adapter": "lora", "lora_r": 4, "lora_target_linear": True, "lora_dropout": 0.1},
        {"adapter": "lora", "lora_r": 4, "lora_target_linear": True, "peft_layers_to_transform": [3]},
        {"optimizer": "muon"},
    ],
    ids=lambda options: ", ".join(options) or "all weights",
)
def test_the_peak_is_the_one_that_is_measured(tmp_path: Path, options: dict[str, Any]) -> None:
    """Rows as long and as trained as can be, so that every batch is the largest."""
    rows = [([3 + (place * 7 + number) % 256 for place in range(LENGTH)], [0] * 40 + [1] * 40) for number in range(8)]
    build(tmp_path, rows, [[number] for number in range(8)], **SHAPE)
    asked = {"max_steps": STEPS, "micro_batch_size": ROWS, "save_strategy": "no"} | options
    assert 0.85 < _estimated(tmp_path, asked, ROWS, 80).total / _measured(tmp_path, asked) < 1.15


@pytest.mark.parametrize(("rl", "rows"), [("dpo", 4), ("kto", 2)])
def test_the_peak_of_preferences_has_a_reference(tmp_path: Path, rl: str, rows: int) -> None:
    """A pair is two rows, and a second model stands beside the one that is trained."""
    answer = [3 + place % 256 for place in range(LENGTH)], [0] * 40 + [1] * 40
    given = [Row(*answer, rejected=answer) if rl == "dpo" else Row(*answer, labels=[number % 2]) for number in range(4)]
    build_preferences(tmp_path, given, 0, **SHAPE)
    asked = {"max_steps": STEPS, "micro_batch_size": ROWS, "save_strategy": "no", "rl": rl}
    memory = _estimated(tmp_path, asked, rows, rows * 40)
    assert memory.reference == memory.weights
    assert 0.85 < memory.total / _measured(tmp_path, asked) < 1.15


def _estimated(workspace: Path, asked: dict[str, Any], rows: int, trained: int) -> Memory:
    base, options = workspace / "data/base", view(**asked)
    config = json.loads((base / "config.json").read_text())
    batch = Batch(rows, LENGTH, trained, options.gradient_accumulation_steps, packed=False)
    return estimate(options, config, read_shapes(base), batch, half=options.bf16 is True, steps=STEPS)


def _measured(workspace: Path, asked: dict[str, Any]) -> int:
    """The weights are read by threads of their own."""
    weights = 4 * count_numbers(read_shapes(workspace / "data/base"))
    return weights + peak_of(lambda: run_stage(TRAIN, workspace, asked))


def test_copies_in_half_and_frozen_halves(tmp_path: Path) -> None:
    """Linear modules under an adapter are held in bfloat16, but where a preference is trained; without one autocast makes copies."""
    save_model(tmp_path)
    config, shapes = json.loads((tmp_path / "config.json").read_text()), read_shapes(tmp_path)
    inside = count_numbers(linear(shapes))

    def memory(**options: Any) -> Memory:
        return estimate(view(**options), config, shapes, Batch(1, 50, 20, 1, packed=False), half=True)

    whole = 4 * count_numbers(shapes)
    assert (memory().weights, memory().copies) == (whole, 2 * inside)
    adapter = memory(adapter="lora", lora_r=4)
    assert (adapter.weights, adapter.copies) == (whole - 2 * inside + 4 * adapter.trained, 0)
    compared = memory(adapter="lora", lora_r=4, rl="dpo")
    assert (compared.weights - 4 * compared.trained, compared.copies, compared.reference) == (whole, 2 * inside, 0)
    assert memory(adapter="lora", lora_r=4, rl="kto", peft_init_lora_weights=False).reference == compared.weights
    assert memory(rl="dpo", precompute_ref_log_probs=True).reference == 0


def test_states_by_optimizer(tmp_path: Path) -> None:
    save_model(tmp_path)
    config, shapes = json.loads((tmp_path / "config.json").read_text()), read_shapes(tmp_path)
    numbers = count_numbers(shapes)

    def memory(**options: Any) -> Memory:
        return estimate(view(**options), config, shapes, Batch(1, 50, 20, 2, packed=False), half=False)

    assert memory(optimizer="adamw_bnb_8bit").optimizer == 2 * numbers
    assert memory(optimizer="paged_adamw_32bit", bf16="full").optimizer == 8 * numbers
    assert memory(optimizer="adamw_torch", bf16="full").optimizer == 4 * numbers
    layerwise = memory(
        optimizer="galore_adamw_layerwise", optim_target_modules="all_linear", optim_args={"rank": 4}, gradient_accumulation_steps=1
    )
    matrices = linear(shapes).values()
    few, squares = sum(4 * max(shape) for shape in matrices), sum(min(shape) ** 2 for shape in matrices)
    assert layerwise.optimizer == 8 * (numbers - count_numbers(linear(shapes)) + few) + 4 * squares
    assert layerwise.gradients == 4 * 259 * 64 and not layerwise.together


@pytest.mark.parametrize(
    ("stage", "weights", "gradients", "buffers"),
    [(1, 1.0, 1.0, 0.0), (2, 1.0, 0.25, 1.0), (3, 0.25, 0.25, 3.0)],
)
def test_zero_shares_out(tmp_path: Path, stage: int, weights: float, gradients: float, buffers: float) -> None:
    """Four processes; shares in whole models. On a GPU DeepSpeed's bucket is there in full, and what is offloaded is not."""
    save_model(tmp_path)
    config, shapes = json.loads((tmp_path / "config.json").read_text()), read_shapes(tmp_path)
    whole = 4 * count_numbers(shapes)

    def memory(gpu: bool, **settings: Any) -> Memory:
        options = view(deepspeed={"zero_optimization": {"stage": stage, **settings}}, train={"num_processes": 4})
        alone = estimate(options, config, shapes, Batch(1, 50, 20, 1, packed=False), half=False)
        return of_one_process(alone, options, 64, gpu=gpu)

    found = memory(gpu=False)
    assert (found.weights, found.gradients, found.buffers) == (weights * whole, gradients * whole, buffers * whole)
    assert found.optimizer == (2 + 1) * whole / 4  # with the copy that is updated
    if stage > 1:
        assert memory(gpu=True).buffers - found.buffers == 4 * 5 * 10**8 - whole
        assert memory(gpu=True, reduce_bucket_size="auto").buffers == found.buffers - whole + 4 * 64**2
    offloaded = memory(gpu=True, offload_optimizer={"device": "cpu"})
    assert offloaded.optimizer == 0 and offloaded.offloaded == (3 / 4 + (gradients if stage > 1 else 0)) * whole


def test_fsdp_cuts_all_alike(tmp_path: Path) -> None:
    save_model(tmp_path)
    config, shapes = json.loads((tmp_path / "config.json").read_text()), read_shapes(tmp_path)
    whole = 4 * count_numbers(shapes)

    def memory(gpu: bool, **settings: Any) -> Memory:
        options = view(fsdp_version=2, fsdp_config=settings, train={"num_processes": 4})
        return of_one_process(
            estimate(options, config, shapes, Batch(1, 50, 20, 1, packed=False), half=False), options, 64, gpu=gpu, whole=1000
        )

    found, offloaded = memory(True, reshard_after_forward=True), memory(True, offload_params=True)
    assert (found.weights, found.gradients, found.optimizer, found.buffers) == (whole / 4, whole / 4, 2 * whole / 4, 1000)
    assert (offloaded.weights, offloaded.optimizer, offloaded.offloaded, offloaded.buffers) == (0, 0, whole, 1000)
    assert memory(False, offload_params=True) == found


def test_ddp_has_buckets_as_large_as_its_gradients(tmp_path: Path) -> None:
    save_model(tmp_path)
    config, shapes = json.loads((tmp_path / "config.json").read_text()), read_shapes(tmp_path)
    options = view(train={"num_processes": 2})
    alone = estimate(options, config, shapes, Batch(1, 50, 20, 1, packed=False), half=False)
    assert of_one_process(alone, options, 64, gpu=False).total == alone.total + alone.gradients


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


def test_it_is_said_of_what_the_memory_is(finished_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each process, on its device; the processes of a machine share its RAM."""
    shutil.copytree(finished_project / "data", tmp_path / "data")

    def said(**options: Any) -> str:
        return "\n".join(forecast(tmp_path / "data", view(**OPTIONS, **options)))

    monkeypatch.setattr("pipeline.forecast.lines._has_gpu", lambda: False)
    assert "of RAM in use by the process," in said() and " of RAM for " not in said()
    two = said(train={"num_processes": 4, "num_machines": 2})
    assert "of RAM in use by each process," in two and "of RAM for the 2 processes of each machine" in two
    assert "buffers between processes" in two
    shared = said(train={"num_processes": 2}, deepspeed={"zero_optimization": {"stage": 3}})
    assert "each of 2 processes reads the whole model into RAM: " in shared and "on this machine" in shared
    cut = said(train={"num_processes": 2}, fsdp_version=2, fsdp_config={"reshard_after_forward": True})
    assert "each of 2 processes reads the whole model into RAM: " in cut
    assert "reference model " in said(rl="dpo") and "are trained at a time" in said(lisa_n_layers=1, lisa_step_interval=1)
    assert "of activations wait on disk" in said(activation_offloading="disk")
    monkeypatch.setattr("pipeline.forecast.lines._has_gpu", lambda: True)
    gpu = said(train={"num_processes": 2}, activation_offloading=True)
    assert "of GPU memory in use by each process," in gpu and "of activations wait in RAM" in gpu and " of RAM for " not in gpu


def test_nothing_is_said_of_a_plan_that_is_not_there(tmp_path: Path, finished_project: Path) -> None:
    assert list(forecast(tmp_path, view())) == []
    shutil.copytree(finished_project / "data", tmp_path / "data")
    manifest = json.loads((tmp_path / "data/packed/manifest.json").read_text())
    manifest["inputs"]["tokens"] = "0" * 64
    (tmp_path / "data/packed/manifest.json").write_text(json.dumps(manifest))
    assert list(forecast(tmp_path / "data", view())) == []

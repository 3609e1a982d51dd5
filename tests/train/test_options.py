"""Every option of train does what it says, or is refused with what would work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import RegrowError
from pipeline.options.views import TrainOptions
from stages.train.arguments import training_arguments
from stages.train.launch import Launch
from stages.train.loop.schedule import plan_schedule
from stages.train.model.build import build_model
from stages.train.model.precision import choose_precision
from tests.train.workspace import FULL, Heard, build, finished, make_rows, read_log, train


def view(**options: Any) -> TrainOptions:
    return TrainOptions.model_validate({"learning_rate": 1e-3} | options)


# option: (value, name in TrainingArguments, value there)
PASSED_ON: dict[str, tuple[Any, str, Any]] = {
    "micro_batch_size": (3, "per_device_train_batch_size", 3),
    "gradient_accumulation_steps": (5, "gradient_accumulation_steps", 5),
    "max_steps": (7, "max_steps", 7),
    "num_epochs": (2.5, "max_steps", 25),
    "optimizer": ("adafactor", "optim", "adafactor"),
    "learning_rate": (0.5, "learning_rate", 0.5),
    "weight_decay": (0.1, "weight_decay", 0.1),
    "max_grad_norm": (0.3, "max_grad_norm", 0.3),
    "lr_scheduler": ("inverse_sqrt", "lr_scheduler_type", "inverse_sqrt"),
    "warmup_steps": (6, "warmup_steps", 6),
    "warmup_ratio": (0.25, "warmup_steps", 3),
    "bf16": (True, "bf16", True),
    "gradient_checkpointing": (True, "activation_checkpointing", True),
    "seed": (9, "seed", 9),
}
PASSED_TO_PEFT: dict[str, tuple[Any, str, Any]] = {
    "lora_r": (3, "r", 3),
    "lora_alpha": (5, "lora_alpha", 5),
    "lora_dropout": (0.3, "lora_dropout", 0.3),
    "lora_target_modules": (["q_proj"], "target_modules", {"q_proj"}),
    "peft_use_dora": (True, "use_dora", True),
    "peft_use_rslora": (True, "use_rslora", True),
}


@pytest.mark.shows(
    "micro_batch_size", "gradient_accumulation_steps", "max_steps", "num_epochs", "optimizer", "learning_rate",
    "weight_decay", "max_grad_norm", "lr_scheduler", "warmup_steps", "warmup_ratio",
    "bf16", "gradient_checkpointing", "seed",
)  # fmt: skip
@pytest.mark.parametrize("option", PASSED_ON)
def test_an_option_reaches_transformers(option: str, tmp_path: Path) -> None:
    value, name, expected = PASSED_ON[option]
    options = view(**{option: value})
    schedule = plan_schedule(options, 10, 1)
    arguments = training_arguments(options, schedule, choose_precision(options, Heard().say), Launch(0, 1), tmp_path)
    assert getattr(arguments, name) == expected
    plain = training_arguments(view(), plan_schedule(view(), 10, 1), "fp32", Launch(0, 1), tmp_path)
    assert getattr(plain, name) != expected


@pytest.mark.parametrize(("bins", "options", "expected"), [
    (10, {}, (10, 10, 1, 0)),
    (10, {"micro_batch_size": 4}, (3, 3, 1, 0)),
    (10, {"micro_batch_size": 2, "gradient_accumulation_steps": 2, "num_epochs": 2}, (3, 6, 1, 0)),
    (1000, {}, (1000, 1000, 5, 30)),
    (40, {}, (40, 40, 1, 2)),
    (8000, {"num_epochs": 0.5}, (8000, 4000, 10, 100)),
    (10, {"max_steps": 25, "num_epochs": 1}, (10, 25, 1, 0)),
    (100, {"logging_steps": 20, "warmup_steps": 0}, (100, 100, 20, 0)),
    (100, {"warmup_ratio": 0.115}, (100, 100, 1, 12)),
])  # fmt: skip
def test_dependent_defaults(bins: int, options: dict[str, Any], expected: tuple[int, ...]) -> None:
    schedule = plan_schedule(view(**options), bins, 1)
    found = (schedule.steps_per_epoch, schedule.steps, schedule.logging_steps, schedule.warmup_steps)
    assert found == expected


def test_the_last_step_of_an_epoch_takes_what_is_left() -> None:
    assert plan_schedule(view(micro_batch_size=2, gradient_accumulation_steps=2), 9, 1).steps_per_epoch == 3
    assert plan_schedule(view(micro_batch_size=2, gradient_accumulation_steps=2), 9, 2).steps_per_epoch == 2


@pytest.mark.shows("lora_r", "lora_alpha", "lora_dropout", "peft_use_dora", "peft_use_rslora")
def test_adapter_options_reach_peft(tmp_path: Path) -> None:
    data = build(tmp_path, make_rows(2), [[0, 1]]) / "data"
    given = {option: value for option, (value, _, _) in PASSED_TO_PEFT.items()}
    config = build_model(data / "base", view(adapter="lora", **given)).peft_config["default"]
    for name, expected in ((name, expected) for _, name, expected in PASSED_TO_PEFT.values()):
        assert getattr(config, name) == expected


def adapted(model: Any) -> set[str]:
    """Last parts of the names of the modules that have an adapter."""
    return {name.partition(".lora_A")[0].rpartition(".")[2] for name, _ in model.named_parameters() if "lora_A" in name}


ALL_LINEAR = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


@pytest.mark.shows("adapter", "lora_target_linear", "lora_target_modules")
@pytest.mark.parametrize(("options", "expected"), [
    ({"lora_target_linear": True}, ALL_LINEAR),
    ({"lora_target_modules": "all-linear"}, ALL_LINEAR),
    ({"lora_target_linear": True, "lora_target_modules": ["q_proj"]}, ALL_LINEAR),
    ({"lora_target_modules": ["q_proj", "up_proj"]}, {"q_proj", "up_proj"}),
    ({"lora_target_modules": r".*\.(k|v)_proj"}, {"k_proj", "v_proj"}),
    ({}, {"q_proj", "v_proj"}),
])  # fmt: skip
def test_target_modules(published: Path, options: dict[str, Any], expected: set[str]) -> None:
    assert adapted(build_model(published / "data" / "base", view(adapter="lora", **options))) == expected


@pytest.mark.parametrize("modules", [["no_such_proj"], "(["])
def test_target_modules_that_are_not_there(published: Path, modules: Any) -> None:
    with pytest.raises(RegrowError, match="lora_target_modules") as caught:
        build_model(published / "data" / "base", view(adapter="lora", lora_target_modules=modules))
    assert "q_proj" in str(caught.value.remedy)


def test_a_pattern_and_all_linear_modules_exclude_each_other(published: Path) -> None:
    with pytest.raises(RegrowError, match="cannot be combined"):
        build_model(published / "data" / "base", view(adapter="lora", lora_target_modules="q.*", lora_target_linear=True))


def test_an_adapter_that_no_memory_holds_is_refused(published: Path) -> None:
    """Of a model so wide that a rank within bounds is too much; here a rank out of bounds stands for it."""
    options = view(adapter="lora").model_copy(update={"lora_r": 10**12})
    with pytest.raises(RegrowError, match=r"adapter of lora_r 1000000000000 cannot be made.*memory"):
        build_model(published / "data" / "base", options)


@pytest.mark.shows("fp16")
def test_precisions_of_a_cpu() -> None:
    assert choose_precision(view(), Heard().say) == "fp32"
    assert choose_precision(view(bf16=False), Heard().say) == "fp32"
    with pytest.raises(RegrowError, match="fp16: true needs a CUDA device"):
        choose_precision(view(fp16=True), Heard().say)
    with pytest.raises(RegrowError, match="exclude each other"):
        choose_precision(view(fp16=True, bf16=True), Heard().say)


@pytest.mark.parametrize(("instructions", "said"), [({"avx512_bf16": False}, 1), ({"avx512_bf16": True}, 0), ({}, 1)])
def test_slow_bf16_is_said(monkeypatch: pytest.MonkeyPatch, instructions: dict[str, bool], said: int) -> None:
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: instructions)
    heard = Heard()
    assert choose_precision(view(bf16=True), heard.say) == "bf16"
    assert len(heard.said) == said


def test_bf16_trains_on_a_cpu(published: Path, workspace: Path) -> None:
    fp32 = finished(published, FULL).log
    trained, metrics = train(workspace, FULL | {"bf16": True}, progress=Heard())
    assert metrics["precision"] == "bf16"
    losses = [line["loss"] for line in read_log(trained)]
    assert losses != [line["loss"] for line in fp32]
    assert losses == pytest.approx([line["loss"] for line in fp32], rel=2e-2)


@pytest.mark.shows("attn_implementation")
@pytest.mark.parametrize("options", [{"attn_implementation": "eager"}, {"gradient_checkpointing": True}])
def test_how_it_is_computed_does_not_change_what_is_learnt(published: Path, workspace: Path, options: dict[str, Any]) -> None:
    expected = [line["loss"] for line in finished(published, FULL).log]
    found = [line["loss"] for line in read_log(train(workspace, FULL | options)[0])]
    assert found == pytest.approx(expected, rel=1e-4)

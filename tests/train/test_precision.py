"""Which numbers a model is held and computed in, and how it is compiled."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from pipeline.errors import RegrowError
from pipeline.options.views import TrainOptions
from stages.train.arguments import training_arguments
from stages.train.launch import Launch
from stages.train.loop.schedule import plan_schedule
from stages.train.model import compilation, precision
from stages.train.model.build import build_model
from stages.train.model.precision import choose_precision, compute_dtype, compute_in_8_bits, weights_dtype
from tests.train.workspace import FULL, LORA, Heard, finished, read_log, train


def view(**options: Any) -> TrainOptions:
    return TrainOptions.model_validate({"learning_rate": 1e-3} | options)


def dtypes(folder: Path) -> set[torch.dtype]:
    from safetensors.torch import load_file

    return {tensor.dtype for path in folder.glob("*.safetensors") for tensor in load_file(path).values()}


@pytest.mark.shows("bf16", "bfloat16")
@pytest.mark.parametrize("options", [{"bf16": "full"}, {"bfloat16": True, "bf16": False}])
def test_everything_in_bfloat16(published: Path, workspace: Path, options: dict[str, Any]) -> None:
    trained, metrics = train(workspace, FULL | options, progress=Heard())
    assert metrics["precision"] == "full bf16"
    assert dtypes(trained.path) == {torch.bfloat16}
    expected = [line["loss"] for line in finished(published, FULL).log]
    found = [line["loss"] for line in read_log(trained)]
    assert found == pytest.approx(expected, rel=1e-2) and found != expected


@pytest.mark.shows("float32")
def test_everything_in_fp32(monkeypatch: pytest.MonkeyPatch, published: Path) -> None:
    """On a GPU that could do bfloat16 too."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: True)
    assert choose_precision(view(), Heard().say) == "bf16"
    assert choose_precision(view(float32=True), Heard().say) == "fp32"
    assert build_model(published / "data" / "base", view(float32=True)).dtype is torch.float32


@pytest.mark.shows("float16", "tf32", "fp8", "fp16")
@pytest.mark.parametrize("name", ["float16", "tf32", "fp8", "fp16"])
def test_numbers_of_a_gpu_are_refused_without_one(name: str) -> None:
    with pytest.raises(RegrowError, match=f"{name}: true needs a CUDA device"):
        choose_precision(view(**{name: True}), Heard().say)


@pytest.mark.parametrize(
    ("options", "chosen", "weights", "products"),
    [
        ({"fp16": True}, "fp16", torch.float32, torch.float16),
        ({"float16": True}, "full fp16", torch.float16, torch.float16),
        ({"fp8": True}, "fp8", torch.float32, torch.bfloat16),
        ({"fp8": True, "bf16": True}, "fp8", torch.float32, torch.bfloat16),
        ({"bf16": "full"}, "full bf16", torch.bfloat16, torch.bfloat16),
        ({"bf16": False, "tf32": True}, "fp32", torch.float32, torch.float32),
    ],
)
def test_numbers_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: dict[str, Any], chosen: Any, weights: torch.dtype, products: torch.dtype
) -> None:
    """What transformers would be told there."""
    told: dict[str, Any] = {}
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: True)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(precision, "require", lambda needed_for, package: None)

    def note(**keywords: Any) -> Any:
        told.update(keywords)
        return SimpleNamespace(n_gpu=1)

    given = view(**options)
    assert choose_precision(given, Heard().say) == chosen
    assert (weights_dtype(given), compute_dtype(given)) == (weights, products)
    training_arguments(given, plan_schedule(given, 10, 1), chosen, Launch(0, 1), tmp_path, kind=cast(Any, note))
    assert (told["bf16"], told["fp16"], told["tf32"]) == (chosen in ("bf16", "fp8"), chosen == "fp16", options.get("tf32"))


def test_an_older_gpu_has_no_8_bit_floats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: True)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda: (8, 0))
    with pytest.raises(RegrowError, match="has no 8-bit floats"):
        choose_precision(view(fp8=True), Heard().say)


@pytest.mark.parametrize("tokens", [16, 13])
def test_8_bit_kernels_take_bins_of_any_length(tokens: int) -> None:
    """As far as shapes go, which the kernels' stand-ins for tensors without memory check too."""
    pytest.importorskip("torchao")
    layer = torch.nn.Linear(32, 48, device="meta")
    model: Any = torch.nn.Sequential(layer)
    model.get_output_embeddings = lambda: None
    compute_in_8_bits(model)
    with torch.autocast("cpu", torch.bfloat16):
        torch.autograd.backward(model(torch.empty(1, tokens, 32, device="meta", requires_grad=True)).sum())
    assert model[0].weight.grad.shape == (48, 32)


def test_linear_layers_in_8_bits(published: Path) -> None:
    """Their arithmetic, without the kernels: near the same logits, and gradients for every weight."""
    pytest.importorskip("torchao")
    model = build_model(published / "data" / "base", view(attn_implementation="sdpa"))
    names, ids = set(model.state_dict()), torch.arange(12)[None]
    expected = model(input_ids=ids).logits
    compute_in_8_bits(model, emulate=True)
    kinds = {name: type(module).__name__ for name, module in model.named_modules()}
    assert kinds["model.layers.0.mlp.up_proj"] == "Float8Linear" and kinds["lm_head"] == "Linear"
    with torch.autocast("cpu", torch.bfloat16):
        found = model(input_ids=ids).logits
    assert 0 < (found - expected).abs().max() < 0.2 * expected.abs().max()
    found.float().sum().backward()
    assert all(weight.grad is not None for weight in model.parameters()) and set(model.state_dict()) == names


def test_frozen_weights_in_the_numbers_of_autocast_change_no_bit(monkeypatch: pytest.MonkeyPatch, published: Path, workspace: Path) -> None:
    model = build_model(published / "data" / "base", view(adapter="lora", bf16=True))
    layer = model.base_model.model.model.layers[0]
    assert layer.mlp.up_proj.weight.dtype is layer.self_attn.q_proj.base_layer.weight.dtype is torch.bfloat16
    assert model.get_input_embeddings().weight.dtype is layer.self_attn.q_proj.lora_A["default"].weight.dtype is torch.float32
    options = LORA | {"bf16": True, "max_steps": 3}
    halved, _ = train(workspace, options, progress=Heard())
    monkeypatch.setattr("stages.train.model.build.halve_frozen", lambda model, options: None)
    whole, _ = train(workspace, options, progress=Heard())
    assert halved.files == whole.files


def test_a_head_that_is_the_embedding_stays_in_fp32(workspace: Path) -> None:
    """Under an adapter of its own it is a linear layer inside another one."""
    options = view(adapter="lora", bf16=True, lora_target_modules=["q_proj", "lm_head"])
    model = build_model(workspace / "data" / "base", options)
    assert hasattr(model.get_output_embeddings(), "base_layer")
    assert model.get_input_embeddings().weight.dtype is torch.float32


def test_an_older_gpu_has_no_tensor_floats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda: (7, 5))
    with pytest.raises(RegrowError, match="tf32: true, but this CUDA device has no TensorFloat-32"):
        choose_precision(view(tf32=True), Heard().say)


COMPILED = {"torch_compile": True, "torch_compile_backend": "aot_eager", "torch_compile_mode": "max-autotune"}


@pytest.mark.shows("torch_compile", "torch_compile_backend", "torch_compile_mode")
@pytest.mark.parametrize("options", [{"attn_implementation": "sdpa"}, {"adapter": "lora", "lora_dropout": 0.0}], ids=str)
def test_a_compiled_model_learns_the_same(
    published: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    asked: list[tuple[Any, Any]] = []
    real = torch.compile

    def compile_quickly(model: Any, *, backend: str, mode: str, **_: Any) -> Any:
        asked.append((backend, mode))
        return real(model, backend="eager")

    monkeypatch.setattr("torch.compile", compile_quickly)
    options = (LORA if "adapter" in options else FULL) | {"max_steps": 1} | options
    trained, _ = train(workspace, options | COMPILED)
    assert asked == 2 * [("aot_eager", "max-autotune")], "one for each layer"
    assert [line["loss"] for line in read_log(trained)] == pytest.approx([line["loss"] for line in finished(published, options).log])
    assert {name for name in trained.files if name.endswith(".safetensors")} == {
        "adapter_model.safetensors" if "adapter" in options else "model.safetensors"
    }


@pytest.mark.parametrize(("gpu", "expected"), [(True, True), (False, False)])
def test_auto_compiles_on_a_gpu(monkeypatch: pytest.MonkeyPatch, gpu: bool, expected: bool) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    assert compilation.compiles(view(torch_compile="auto")) is expected
    assert not compilation.compiles(view(torch_compile="auto", deepspeed={"zero_optimization": {"stage": 2}}))


def test_what_compiling_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RegrowError, match="torch has no 'no_such' here"):
        compilation.compiles(view(torch_compile=True, torch_compile_backend="no_such"))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(RegrowError, match=r"needs a C\+\+ compiler on a CPU, and there is no g\+\+ or clang\+\+ here"):
        compilation.compiles(view(torch_compile=True))
    assert compilation.compiles(view(torch_compile=True, torch_compile_backend="eager"))

"""torchao: opens like any Hugging Face folder, computes nearly the same, and is the same bytes every time."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline.errors import RegrowError
from stages.quantize import STAGE
from tests.quantize.merged import answer, logits, publish_merged, quantize, save_any, save_llama
from tests.tiny import run_stage

INT8: dict[str, Any] = {"quantize": ["int8"]}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_reloads_and_computes_nearly_the_same(tmp_path: Path, dtype: torch.dtype, tied: bool) -> None:
    merged = publish_merged(tmp_path, partial(save_llama, dtype=dtype, tie_word_embeddings=tied))
    outputs, metrics = run_stage(STAGE, tmp_path, INT8)
    folder = outputs["quantized"].path / "int8"
    before, after = AutoModelForCausalLM.from_pretrained(merged.path), AutoModelForCausalLM.from_pretrained(folder)
    assert after.dtype == dtype and type(after.model.layers[0].mlp.up_proj.weight).__name__ == "Int8Tensor"
    for name, weight in before.state_dict().items():
        stored = after.get_parameter(name)
        restored: torch.Tensor = stored.dequantize() if type(stored).__name__ == "Int8Tensor" else stored
        step = weight.float().abs().amax(-1, keepdim=True) / 127
        assert ((weight.float() - restored.float()).abs() <= step * 0.55 + weight.float().abs() * 0.02).all(), name
    error = (logits(after) - logits(before)).abs().max()
    assert 0 < error < 0.05 * logits(before).abs().max()
    assert metrics["int8"]["quantized"] == 14
    tokenizers = [AutoTokenizer.from_pretrained(path) for path in (folder, merged.path)]
    assert len({tuple(tokenizer("Regrow 12")["input_ids"]) for tokenizer in tokenizers}) == 1


def test_the_same_model_is_the_same_bytes(tmp_path: Path) -> None:
    publish_merged(tmp_path)
    digests = {run_stage(STAGE, tmp_path, INT8)[0]["quantized"].digest for _ in range(3)}
    assert len(digests) == 1
    assert run_stage(STAGE, tmp_path, INT8)[0]["quantized"].content["formats"]["int8"]["same_bytes"] == "everywhere"


def test_nothing_in_it_tells_where_it_was_made(tmp_path: Path) -> None:
    publish_merged(tmp_path)
    folder = run_stage(STAGE, tmp_path, INT8)[0]["quantized"].path / "int8"
    assert all(str(tmp_path).encode() not in path.read_bytes() for path in folder.iterdir())
    assert json.loads((folder / "config.json").read_text())["quantization_config"]["quant_method"] == "torchao"


def test_bits_per_weight_are_what_is_stored(tmp_path: Path) -> None:
    publish_merged(tmp_path)
    outputs, metrics = run_stage(STAGE, tmp_path, INT8)
    folder = outputs["quantized"].path / "int8"
    model = AutoModelForCausalLM.from_pretrained(folder)
    embedded, total = model.model.embed_tokens.weight.numel(), sum(parameter.numel() for parameter in model.parameters())
    assert 8 * (4 * embedded + total - embedded) / total < metrics["int8"]["bits_per_weight"] < 32
    assert metrics["int8"]["bytes"] == (folder / "model.safetensors").stat().st_size
    assert outputs["quantized"].content["formats"]["int8"]["bits_per_weight"] == metrics["int8"]["bits_per_weight"]


def test_a_model_without_linear_layers(tmp_path: Path) -> None:
    publish_merged(tmp_path, partial(save_any, model_type="gpt2", n_layer=1, n_head=4, n_embd=64))
    with pytest.raises(RegrowError, match="no linear layer"):
        run_stage(STAGE, tmp_path, INT8)


ROUNDED: dict[str, tuple[dict[str, Any], float]] = {
    "int8-g16": ({"weight_dtype": "int8", "group_size": 16}, 0.02),
    "int8-aint8": ({"weight_dtype": "int8", "activation_dtype": "int8"}, 0.04),
    "int4-g32": ({"weight_dtype": "int4"}, 0.25),
    "int4-g64": ({"weight_dtype": "int4", "group_size": 64}, 0.25),
    "int4-g32-aint8": ({"weight_dtype": "int4", "activation_dtype": "int8"}, 0.25),
    "fp8": ({"weight_dtype": "float8_e4m3fn"}, 0.1),
    "nvfp4": ({"weight_dtype": "nvfp4"}, 0.25),
    "int8-embeddings": ({"weight_dtype": "int8", "quantize_embedding": True}, 0.04),
    "int8-aint8-embeddings": ({"weight_dtype": "int8", "activation_dtype": "int8", "quantize_embedding": True}, 0.04),
    "int4-g32-embeddings": ({"weight_dtype": "int4", "quantize_embedding": True}, 0.25),
    "int4-g32-aint8-embeddings": ({"weight_dtype": "int4", "activation_dtype": "int8", "quantize_embedding": True}, 0.25),
}
"""Folder, the entry, and how far logits may be off, as a share of the largest."""


@pytest.mark.parametrize("tied", [True, False])
def test_every_pair_reloads_and_generates(tmp_path: Path, tied: bool) -> None:
    merged = publish_merged(tmp_path, partial(save_llama, tie_word_embeddings=tied))
    before = AutoModelForCausalLM.from_pretrained(merged.path)
    folder, metrics = quantize(tmp_path, *({"format": "torchao"} | entry for entry, _ in ROUNDED.values()))
    assert list(metrics) == list(ROUNDED)
    for name, (entry, share) in ROUNDED.items():
        after = AutoModelForCausalLM.from_pretrained(folder / name)
        error = (logits(after) - logits(before)).abs().max()
        assert 0 < error < share * logits(before).abs().max(), name
        assert len(answer(after)) == 8
        embeddings = type(after.get_input_embeddings().weight).__name__
        assert (embeddings != "Parameter") == bool(entry.get("quantize_embedding")), name
        assert after.get_output_embeddings().weight.equal(before.get_output_embeddings().weight), "the output head stays as it is"
        assert metrics[name]["quantized"] == 14 + bool(entry.get("quantize_embedding"))
        assert json.loads((folder / name / "quantize.json").read_text())["quantize"]["format"] == "torchao"


def test_axolotls_block_is_one_more_format(tmp_path: Path) -> None:
    publish_merged(tmp_path)
    folder, metrics = quantize(tmp_path, "int8", quantization={"weight_dtype": "int4", "activation_dtype": "int8", "group_size": 64})
    assert list(metrics) == ["int8", "int4-g64-aint8"] and (folder / "int4-g64-aint8" / "model.safetensors").exists()
    _, metrics = quantize(tmp_path, "int8", quantization={})
    assert list(metrics) == ["int8"], "its default asks for what is listed already"


def test_groups_that_do_not_fill_rows(tmp_path: Path) -> None:
    publish_merged(tmp_path, partial(save_llama, hidden_size=96))
    with pytest.raises(
        RegrowError, match=r"int4-g128: groups of 128 .* model\.layers\.0\.self_attn\.q_proj\.weight, which have 96"
    ) as caught:
        quantize(tmp_path, {"format": "torchao", "weight_dtype": "int4", "group_size": 128})
    assert "group_size can be 32, 16, 8" in str(caught.value)
    with pytest.raises(RegrowError, match="groups of 128 weights") as caught:
        quantize(tmp_path, {"format": "torchao", "weight_dtype": "int4", "activation_dtype": "fp8"})
    assert "write another pair" in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
@pytest.mark.parametrize(
    ("entry", "instead"),
    [
        ({"weight_dtype": "fp8", "activation_dtype": "fp8"}, "weight_dtype fp8 alone"),
        ({"weight_dtype": "int4", "activation_dtype": "fp8"}, "weight_dtype int4 without packed"),
        ({"weight_dtype": "int4", "packed": True}, "weight_dtype int4 without packed"),
        ({"weight_dtype": "nvfp4", "activation_dtype": "nvfp4"}, "weight_dtype nvfp4 alone"),
        ({"weight_dtype": "mxfp4", "activation_dtype": "mxfp4"}, "weight_dtype nvfp4 alone"),
    ],
)
def test_what_only_a_gpu_writes(tmp_path: Path, entry: dict[str, Any], instead: str) -> None:
    publish_merged(tmp_path, partial(save_llama, hidden_size=128))
    with pytest.raises(RegrowError, match=r"on a CUDA GPU of compute capability .* this machine has none") as caught:
        quantize(tmp_path, {"format": "torchao"} | entry)
    assert instead in str(caught.value) and not (tmp_path / "data" / "quantized").exists()

"""int8: opens like any Hugging Face folder, computes nearly the same, and is the same bytes every time."""

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
from tests.quantize.merged import logits, publish_merged, save_any, save_llama
from tests.tiny import run_stage

INT8: dict[str, Any] = {"quantize": {"formats": ["int8"]}}


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
        assert ((weight.float() - restored.float()).abs() <= step * 0.55 + weight.float().abs() * 0.01).all(), name
    error = (logits(after) - logits(before)).abs().max()
    assert 0 < error < 0.05 * logits(before).abs().max()
    assert metrics["int8"]["quantized"] == 14
    tokenizers = [AutoTokenizer.from_pretrained(path) for path in (folder, merged.path)]
    assert len({tuple(tokenizer("Regrow 12")["input_ids"]) for tokenizer in tokenizers}) == 1


def test_the_same_model_is_the_same_bytes(tmp_path: Path) -> None:
    publish_merged(tmp_path)
    digests = {run_stage(STAGE, tmp_path, INT8)[0]["quantized"].digest for _ in range(3)}
    assert len(digests) == 1


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

"""GGUF: read back by transformers, which knows nothing of how the file was written."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFReader
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from stages.quantize import STAGE
from tests.quantize.merged import ROWS, TEXT, answer, logits, publish_merged, quantize, save_any, save_llama
from tests.tiny import CHATML, run_stage

Q8_0: dict[str, Any] = {"quantize": ["q8_0"]}
Save = Callable[[Path], None]

ODD: dict[str, Any] = {"hidden_size": 48, "intermediate_size": 80}
"""No row of this model is a multiple of 32 weights, so all of it stays float32."""

MODELS: dict[str, Save] = {
    "llama": save_llama,
    "llama untied": partial(save_llama, tie_word_embeddings=False),
    "llama biases": partial(save_any, model_type="llama", attention_bias=True, mlp_bias=True),
    "llama many files bf16": partial(save_llama, dtype=torch.bfloat16, shard="60KB"),
    "llama wide heads": partial(save_any, model_type="llama", head_dim=32),
    "mistral": partial(save_any, model_type="mistral"),
    "qwen2": partial(save_any, model_type="qwen2"),
    "qwen3": partial(save_any, model_type="qwen3", head_dim=128),
}
ODD_MODELS: dict[str, Save] = {
    "llama": partial(save_llama, **ODD),
    "llama biases": partial(save_any, model_type="llama", attention_bias=True, mlp_bias=True, **ODD),
    "mistral": partial(save_any, model_type="mistral", **ODD),
    "qwen2": partial(save_any, model_type="qwen2", **ODD),
    "qwen3": partial(save_any, model_type="qwen3", **ODD | {"head_dim": 128, "num_attention_heads": 1, "num_key_value_heads": 1}),
}


def write(workspace: Path, save: Save = save_llama, cut: str = "smollm") -> tuple[Path, dict[str, Any]]:
    """Quantize a merged model; the folder of the GGUF file and what the stage says of it."""
    publish_merged(workspace, save, cut)
    outputs, metrics = run_stage(STAGE, workspace, Q8_0)
    return outputs["quantized"].path / "q8_0", metrics["q8_0"]


def open_gguf(folder: Path, case: str) -> Any:
    """The file as transformers reads it. GGUF says by their presence that a llama has biases; transformers wants to be told."""
    settings: dict[str, Any] = {"attention_bias": True, "mlp_bias": True} if "biases" in case else {}
    config = AutoConfig.from_pretrained(folder, gguf_file="model.gguf", **settings)
    return AutoModelForCausalLM.from_pretrained(folder, gguf_file="model.gguf", dtype=torch.float32, config=config)


def open_merged(workspace: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(workspace / "data" / "merged", dtype=torch.float32)


@pytest.mark.parametrize("case", MODELS)
def test_logits_differ_by_no_more_than_the_rounding(tmp_path: Path, case: str) -> None:
    folder, facts = write(tmp_path, MODELS[case])
    before, after = open_merged(tmp_path), open_gguf(folder, case)
    expected = logits(before)
    error = (logits(after) - expected).abs().max()
    assert 0 < error < 0.05 * expected.abs().max()
    for name, weight in before.state_dict().items():
        restored = after.state_dict()[name]
        if weight.dim() == 1:
            assert restored.equal(weight), name
        elif weight.shape[-1] % 32 == 0:
            largest = weight.reshape(-1, 32).abs().amax(-1, keepdim=True)
            difference = (restored - weight).reshape(-1, 32).abs()
            # half a step of 1/127, and the scale itself rounded to 11 bits
            assert (difference <= largest * (0.5 / 127 + 2**-11)).all(), name
    assert facts["quantized"] > 0


@pytest.mark.parametrize("case", ODD_MODELS)
def test_rows_that_are_no_multiple_of_32_stay_exact(tmp_path: Path, case: str) -> None:
    folder, facts = write(tmp_path, ODD_MODELS[case])
    before, after = open_merged(tmp_path), open_gguf(folder, case)
    wide = [name for name, weight in before.state_dict().items() if weight.dim() == 2 and weight.shape[-1] % 32 == 0]
    assert all(after.state_dict()[name].equal(weight) for name, weight in before.state_dict().items() if name not in wide)
    if not wide:
        assert logits(after).equal(logits(before)) and facts["quantized"] == 0 and facts["bits_per_weight"] == 32


def test_the_file_is_the_same_bytes_whatever_the_layout_of_the_model(tmp_path: Path) -> None:
    files = [write(tmp_path / shard, partial(save_llama, shard=shard))[0] / "model.gguf" for shard in ("60KB", "1GB")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_size_is_eight_and_a_half_bits(tmp_path: Path) -> None:
    folder, facts = write(tmp_path)
    assert 8.5 <= facts["bits_per_weight"] < 8.7 and facts["bytes"] == (folder / "model.gguf").stat().st_size
    assert facts["quantized"] == 15 and facts["tensors"] == 20
    assert facts["ratio_to_merged"] == round(facts["bytes"] / (tmp_path / "data" / "merged" / "model.safetensors").stat().st_size, 4)


def test_metadata_says_what_llama_cpp_reads(tmp_path: Path) -> None:
    save = partial(save_any, model_type="llama", rope_parameters={"rope_type": "default", "rope_theta": 5e4}, rms_norm_eps=1e-5)
    folder, _ = write(tmp_path, save)
    fields = {name: field.contents() for name, field in GGUFReader(folder / "model.gguf").fields.items()}
    expected = {
        "general.architecture": "llama",
        "general.file_type": 7,
        "llama.context_length": 128,
        "llama.embedding_length": 64,
        "llama.block_count": 2,
        "llama.feed_forward_length": 96,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.rope.dimension_count": 16,
        "llama.rope.freq_base": 5e4,
        "llama.vocab_size": ROWS,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": CHATML,
    }
    assert {name: fields.get(name) for name in expected} == expected
    assert fields["llama.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-5)
    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    assert len(tokens) == len(types) == ROWS and types[:4] == [3, 3, 3, 1]
    assert types[tokens.index("<think>")] == 4 and types[-1] == 5 and tokens[-1] == f"[PAD{ROWS - 1}]"
    assert str(tmp_path) not in repr(fields)


@pytest.mark.parametrize("cut", ["gpt-2", "smollm", "qwen2", "llama-bpe"])
def test_the_tokenizer_cuts_text_as_it_did(tmp_path: Path, cut: str) -> None:
    folder, _ = write(tmp_path, cut=cut)
    assert GGUFReader(folder / "model.gguf").fields["tokenizer.ggml.pre"].contents() == cut
    before = AutoTokenizer.from_pretrained(tmp_path / "data" / "merged")
    after = AutoTokenizer.from_pretrained(folder, gguf_file="model.gguf")
    # transformers reads smollm as gpt-2 and does not cut digits; llama.cpp does.
    text = "".join(letter for letter in TEXT if not letter.isdigit()) if cut == "smollm" else TEXT
    assert after(text)["input_ids"] == before(text)["input_ids"]
    assert after("<|im_start|>a<think>b<|im_end|>")["input_ids"] == before("<|im_start|>a<think>b<|im_end|>")["input_ids"]


def test_the_known_expressions_are_those_of_transformers() -> None:
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    from stages.quantize.vocabulary import PRE_TOKENIZERS

    splits = {name: chain[0][1] for chain, name in PRE_TOKENIZERS.items() if chain[0][0] == "Split"}
    assert splits == {name: GGUF_PRE_TOKENIZER_SPLITS[name] for name in ("qwen2", "llama-bpe")}


BITS = {"f32": 32, "f16": 16, "bf16": 16, "q8_0": 8.5, "q5_1": 6, "q5_0": 5.5, "q4_1": 5, "q4_0": 4.5}


def test_every_type_reloads_and_generates(tmp_path: Path) -> None:
    publish_merged(tmp_path)
    folder, metrics = quantize(tmp_path, *BITS)
    expected = logits(open_merged(tmp_path))
    errors = {}
    for name, bits in BITS.items():
        tensors = {tensor.name: tensor.tensor_type.name.lower() for tensor in GGUFReader(folder / name / "model.gguf").tensors}
        spared = "q8_0" if name[:2] in ("q4", "q5") else name
        assert tensors["blk.0.ffn_up.weight"] == name and tensors["token_embd.weight"] == spared and tensors["output_norm.weight"] == "f32"
        after = open_gguf(folder / name, "llama")
        assert len(answer(after)) == 8
        errors[name] = float((logits(after) - expected).abs().max())
        embedded = ROWS * 64
        total = sum(parameter.numel() for parameter in after.parameters())
        low = (bits * (total - embedded) + (8.5 if spared == "q8_0" else bits) * embedded) / total
        assert low <= metrics[name]["bits_per_weight"] < low + 0.2
        said = json.loads((folder / name / "quantize.json").read_text())
        assert said["quantize"] == {"format": "gguf", "type": name} and said["bytes"] == metrics[name]["bytes"]
    assert (
        errors["f32"] == 0 < errors["f16"] < errors["bf16"] < errors["q8_0"] < errors["q5_0"] < errors["q4_0"] < 0.15 * expected.abs().max()
    )

"""Quantised copies of a Llama folder, made without the quantize stage: what the tests of loading start from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

_LAYER_TENSORS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write_int8(folder: Path, source: Path) -> None:
    """The model in ``source`` with torchao int8 weights, as a Hugging Face folder."""
    import torch
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import AutoModelForCausalLM, TorchAoConfig

    config = TorchAoConfig(Int8WeightOnlyConfig(version=2))
    AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, quantization_config=config).save_pretrained(folder)


def write_q8_0(file: Path, source: Path) -> None:
    """The Llama in ``source`` as GGUF Q8_0: matrices in blocks of 32, vectors in float32."""
    import gguf
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(source)
    state = {name: tensor.float().numpy() for name, tensor in AutoModelForCausalLM.from_pretrained(source).state_dict().items()}
    writer = gguf.GGUFWriter(file, "llama")
    _describe(writer, config)
    for name, tensor in _rename(state, config):
        if tensor.ndim == 1:
            writer.add_tensor(name, tensor)
        else:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(tensor, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _describe(writer: Any, config: Any) -> None:
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)


def _rename(state: dict[str, Any], config: Any) -> Any:
    yield "token_embd.weight", state["model.embed_tokens.weight"]
    yield "output_norm.weight", state["model.norm.weight"]
    for layer in range(config.num_hidden_layers):
        for theirs, ours in _LAYER_TENSORS.items():
            tensor = state[f"model.layers.{layer}.{theirs}.weight"]
            heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(ours)
            yield f"blk.{layer}.{ours}.weight", _permute(tensor, heads) if heads else tensor


def _permute(weight: np.ndarray, heads: int) -> np.ndarray:
    """GGUF interleaves the two halves of each rotary head."""
    return weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)

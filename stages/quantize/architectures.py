"""Which model architectures can be written as GGUF, and the numbers that GGUF wants of their configuration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, GGUFWriter

from pipeline.errors import RegrowError

REMOVE = "Remove the types of GGUF from quantize."


@dataclass(frozen=True)
class Architecture:
    """How an architecture is called in GGUF.

    ``interleaved``: llama.cpp rotates neighbouring pairs of a head there, transformers its two halves, so the rows of the
    query and key projections change places.
    """

    gguf: MODEL_ARCH
    interleaved: bool

    @property
    def name(self) -> str:
        """The value of general.architecture."""
        return MODEL_ARCH_NAMES[self.gguf]


ARCHITECTURES = {
    "LlamaForCausalLM": Architecture(MODEL_ARCH.LLAMA, interleaved=True),
    "MistralForCausalLM": Architecture(MODEL_ARCH.LLAMA, interleaved=True),
    "Qwen2ForCausalLM": Architecture(MODEL_ARCH.QWEN2, interleaved=False),
    "Qwen3ForCausalLM": Architecture(MODEL_ARCH.QWEN3, interleaved=False),
}


def read_model_config(merged: Path) -> tuple[Architecture, Any]:
    """The architecture of the model in ``merged`` and its transformers configuration.

    Raises:
        RegrowError: an architecture, or a setting of one, that would come out as another model.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(merged, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise RegrowError(f"{merged / 'config.json'} cannot be read: {error}.") from None
    name = (config.architectures or [config.model_type])[0]
    if name not in ARCHITECTURES:
        raise RegrowError(f"{merged} is a {name}; GGUF is written for {', '.join(sorted(ARCHITECTURES))}.", REMOVE)
    for setting, value, wanted in _limits(config):
        if value != wanted:
            raise RegrowError(
                f"{merged / 'config.json'} has {setting}: {value!r}; GGUF is written for {name} with {wanted!r} only.", REMOVE
            )
    return ARCHITECTURES[name], config


def _limits(config: Any) -> list[tuple[str, Any, Any]]:
    """(setting, value, the only value written): tensors and metadata for the others are not made."""
    sliding = getattr(config, "use_sliding_window", True) and (getattr(config, "sliding_window", None) or 0)
    return [
        ("rope_type", config.rope_parameters.get("rope_type", "default"), "default"),
        ("hidden_act", config.hidden_act, "silu"),
        ("sliding_window", sliding if sliding and sliding < config.max_position_embeddings else None, None),
    ]


def head_dim(config: Any) -> int:
    """Dimensions of one attention head."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def add_hyperparameters(writer: GGUFWriter, config: Any) -> None:
    """The metadata that llama.cpp builds the graph from."""
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_dim(config))
    writer.add_value_length(head_dim(config))
    writer.add_rope_dimension_count(head_dim(config))
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)

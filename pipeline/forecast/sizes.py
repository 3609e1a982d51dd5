"""Widths of a decoder, from its config.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Sizes:
    """Widths of a decoder, in numbers for each token, and how many layers and tokens it has."""

    layers: int
    hidden: int
    heads: int
    inner: int
    vocabulary: int


_NAMES = {
    "layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "hidden": ("hidden_size", "n_embd", "d_model", "dim"),
    "attention": ("num_attention_heads", "n_head", "n_heads"),
    "vocabulary": ("vocab_size",),
}


def layer_sizes(config: Mapping[str, Any]) -> Sizes:
    """As config.json has them, under the names that architectures give them.

    Raises:
        KeyError: it has none of the names of one of them.
    """
    config = config.get("text_config") or config
    found = {name: int(next(config[key] for key in keys if config.get(key))) for name, keys in _NAMES.items() if _has(config, keys)}
    hidden = found["hidden"]
    heads = found["attention"] * int(config.get("head_dim") or hidden // found["attention"])
    return Sizes(found["layers"], hidden, heads, _inner(config, hidden), found["vocabulary"])


def _has(config: Mapping[str, Any], keys: tuple[str, ...]) -> bool:
    return any(config.get(key) for key in keys)


def _inner(config: Mapping[str, Any], hidden: int) -> int:
    """Inner width of the MLP; of experts, those that see a token."""
    if config.get("moe_intermediate_size") and config.get("num_experts_per_tok"):
        return int(config["moe_intermediate_size"]) * int(config["num_experts_per_tok"])
    inner = next((config[key] for key in ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size") if config.get(key)), 4 * hidden)
    return int(inner) * int(config.get("num_experts_per_tok") or 1)

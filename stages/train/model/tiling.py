"""MLP layers over pieces of the sequence: their inner activations, several times the width of the model, never exist for all tokens.

Each token passes an MLP on its own, so the outputs are the same; the backward pass computes a piece again when it needs it.
The idea is that of Arctic Long Sequence Training (arXiv 2506.13996), here with torch's own recomputation.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from pipeline.errors import RegrowError

_NAMES = ("mlp", "feed_forward", "ffn")


def tile_mlps(model: Any, pieces: int | None) -> None:
    """Replace the forward of every MLP of ``model``; ``pieces`` None: one for as many tokens as its input is wide.

    Raises:
        RegrowError: there is none that works token by token.
    """
    found = list(_mlps(model))
    if not found:
        raise RegrowError(
            f"tiled_mlp: {type(model).__name__} has no MLP layers that take hidden states alone.",
            "Set tiled_mlp: false; gradient_checkpointing saves memory too.",
        )
    for mlp in found:
        mlp.forward = partial(_in_pieces, mlp.forward, pieces)


def _mlps(model: torch.nn.Module) -> Iterator[Any]:
    """Layers of an MLP's name with one input. Experts that a router sends tokens to see few of them anyway."""
    for name, module in model.named_modules():
        if name.rpartition(".")[2] in _NAMES and not hasattr(module, "experts") and len(inspect.signature(module.forward).parameters) == 1:
            yield module


def _in_pieces(forward: Callable[[torch.Tensor], torch.Tensor], pieces: int | None, hidden: torch.Tensor) -> torch.Tensor:
    """``hidden`` is ``[…, tokens, width]``, and so is the result."""
    tokens, width = hidden.shape[-2:]
    parts = hidden.chunk(pieces or math.ceil(tokens / width), dim=-2)
    if len(parts) == 1:
        return forward(hidden)
    return torch.cat([checkpoint(forward, part, use_reentrant=False) for part in parts], dim=-2)

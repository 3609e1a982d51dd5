"""The arithmetic of merging one weight. Same operations, in the same order, as peft's ``merge_and_unload``."""

from __future__ import annotations

import torch
from torch import Tensor


def add_low_rank(weight: Tensor, a: Tensor, b: Tensor, scale: float, magnitude: Tensor | None, *, transposed: bool) -> Tensor:
    """``weight + scale * b @ a``; with ``magnitude``, its rows rescaled to those lengths (DoRA, arXiv:2402.09353).

    Computed in float32 and rounded once to the dtype of ``weight``: rounding the update first, as peft's
    ``safe_merge=True`` does, loses most of a small update to a bfloat16 weight.

    Args:
        weight: ``[out, in]``, or ``[in, out]`` when ``transposed`` (Conv1D layers and embeddings).
        a: ``[rank, in]``.
        b: ``[out, rank]``.
        scale: alpha / rank, or alpha / sqrt(rank) for rsLoRA.
        magnitude: ``[out]`` or None.
        transposed: how ``weight`` is stored.
    """
    product = b.float() @ a.float()
    delta = (product.T if transposed else product) * scale
    if magnitude is None:
        return (weight + delta).to(weight.dtype)
    rows = weight.T + delta.T if transposed else weight + delta
    lengths: Tensor = torch.linalg.norm(rows, dim=1)
    factor = magnitude.float() / lengths
    factor = factor.view(1, -1) if transposed else factor.view(-1, 1)
    return (factor * (weight + delta)).to(weight.dtype)

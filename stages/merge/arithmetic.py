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


def add_to_stack(stack: Tensor, a: Tensor, b: Tensor, scale: float, *, transposed: bool) -> Tensor:
    """``stack`` plus one low-rank update for each of its matrices, as peft lays out the adapter of a stack of experts.

    Args:
        stack: ``[experts, out, in]``, or ``[experts, in, out]`` when ``transposed``.
        a: ``[experts * rank, in]``, one expert after the other.
        b: ``[out, rank * experts]``, the experts of each rank side by side.
        scale: alpha / rank, or alpha / sqrt(rank) for rsLoRA.
        transposed: how each matrix is stored.
    """
    experts = stack.shape[0]
    each_a, each_b = a.float().reshape(experts, -1, a.shape[1]), b.float().reshape(b.shape[0], -1, experts)
    delta = torch.einsum(f"ore,eri->{'eio' if transposed else 'eoi'}", each_b, each_a) * scale
    return (stack + delta).to(stack.dtype)

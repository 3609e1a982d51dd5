"""NormalFloat quantisation and LoftQ (arXiv 2310.08659), in plain torch.

NormalFloat (arXiv 2305.14314, appendix E) has its values at the quantiles of a normal distribution, each block of 64 weights
scaled by its largest.
"""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 64
_OFFSET = 0.9677083
"""Outermost quantile: (1/2)(1 - 1/32 + 1 - 1/30), as the paper and bitsandbytes have it."""


def normal_float_values(bits: int) -> Tensor:
    """The ``2**bits`` values, float32 ascending from -1 to 1, zero among them."""
    half = 2 ** (bits - 1)
    positive = _quantiles(half + 1)
    negative = -_quantiles(half)
    values = torch.cat([negative, torch.zeros(1, dtype=torch.float64), positive]).sort().values
    return (values / values.abs().max()).float()


def _quantiles(count: int) -> Tensor:
    """``count - 1`` positive quantiles from the outermost inwards; the median itself is zero and left out."""
    quantiles: Tensor = torch.special.ndtri(torch.linspace(_OFFSET, 0.5, count, dtype=torch.float64)[:-1])
    return quantiles


def round_to_normal_float(weight: Tensor, bits: int) -> Tensor:
    """``weight`` as it would be read back from ``bits`` bits; same shape, float32."""
    values = normal_float_values(bits).to(weight.device)
    flat = weight.flatten()
    blocks = torch.nn.functional.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
    scale = blocks.abs().amax(1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    borders = (values[1:] + values[:-1]) / 2
    nearest = values[torch.bucketize(blocks / scale, borders)]
    return (nearest * scale).flatten()[: len(flat)].view_as(weight)


def loftq(weight: Tensor, bits: int, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Split ``weight`` ``[out, in]`` into a rounded matrix and a product of low rank.

    One round of the paper's alternation, as PEFT does by default: round, then take the best ``B A`` of what was lost.

    Returns:
        The rounded matrix, ``A`` ``[rank, in]`` and ``B`` ``[out, rank]``; rounded + B A is nearer to ``weight`` than rounded.
    """
    rounded = round_to_normal_float(weight, bits)
    left, singular, right = torch.linalg.svd(weight - rounded, full_matrices=False)
    root = singular[:rank].sqrt()
    return rounded, root[:, None] * right[:rank], left[:, :rank] * root

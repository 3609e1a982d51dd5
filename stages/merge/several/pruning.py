"""Which changes of a tensor are kept: the largest, or random ones; the same on every machine, whatever the order of tensors.

peft's functions leave both open: `topk` chooses among equal magnitudes as its algorithm has it, and DARE draws from one stream
of the process, so that each mask depends on all that was drawn before.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

_BLOCK = 1 << 20


def keep_largest(delta: Tensor, density: float) -> Tensor:
    """``delta`` with the ``int(density * numel)`` largest magnitudes, and zeros elsewhere (TIES, arXiv:2306.01708).

    Of equal magnitudes the first ones stay.
    """
    flat = delta.flatten()
    kept = int(density * flat.numel())
    if kept == flat.numel():
        return delta
    mask = np.zeros(flat.numel(), dtype=bool)
    if kept:
        magnitudes = flat.abs().numpy()
        limit = np.partition(magnitudes, len(magnitudes) - kept)[-kept]
        mask |= magnitudes > limit
        mask[np.flatnonzero(magnitudes == limit)[: kept - int(mask.sum())]] = True
    return torch.where(torch.from_numpy(mask), flat, 0).view(delta.shape)


def keep_random(delta: Tensor, density: float, seed: int, source: int, name: str) -> Tensor:
    """``delta`` with each change kept with probability ``density`` and divided by it, and zeros elsewhere (DARE, arXiv:2311.03099).

    Args:
        seed: `merge.seed`.
        source: which adapter or model the change is of; each has masks of its own.
        name: of the tensor. Seed, source and name alone decide the mask.
    """
    if density >= 1:
        return delta
    key = hashlib.sha256(f"{seed} {source} {name}".encode()).digest()[:16]
    numbers = np.random.Philox(key=int.from_bytes(key, "little"))
    flat, limit = delta.flatten(), np.uint64(int(density * 2.0**64))
    kept = torch.empty_like(flat)
    for start in range(0, flat.numel(), _BLOCK):
        part = flat[start : start + _BLOCK]
        mask = torch.from_numpy(numbers.random_raw(part.numel()) < limit)
        kept[start : start + _BLOCK] = torch.where(mask, part / density, 0)
    return kept.view(delta.shape)

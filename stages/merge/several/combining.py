"""The arithmetic of `merge.method`: one change to a tensor from those that several adapters or models make to it.

Sums, signs and their agreement are peft's own functions, on blocks of a tensor so that memory stays small.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from peft.utils.merge_utils import calculate_majority_sign_mask, disjoint_merge, reshape_weight_task_tensors, task_arithmetic
from torch import Tensor

from pipeline.options.merge import MergeMethod
from stages.merge.several.pruning import keep_largest, keep_random

_BLOCK = 1 << 20
_WHOLE = 256  # torch sums what fills no vector register in another order: blocks are filled up with zeros
_PARALLEL = 0.9995  # as in mergekit: two tensors with a larger cosine have no angle worth an arc


@dataclass(frozen=True)
class Share:
    """How much of one source goes in: what its change is multiplied by, and how much of it is kept first."""

    weight: float
    density: float = 1.0


@dataclass(frozen=True)
class Combination:
    """A method with all that it is told; ``shares`` in the order of the sources, the trained one first."""

    method: MergeMethod
    shares: Sequence[Share]
    seed: int

    def apply(self, name: str, base: Tensor, deltas: Sequence[Tensor]) -> Tensor:
        """The merged tensor in float32, from the base's (float32) and what every source adds to it."""
        if self.method == "slerp":
            first, second = (share.weight for share in self.shares)
            return interpolate(base + deltas[0], base + deltas[1], second / (first + second))
        kept = [self._prune(name, number, delta) for number, delta in enumerate(deltas)]
        join = _agreeing if self.method in ("ties", "dare_ties") else task_arithmetic
        return base + _in_blocks(kept, torch.tensor([share.weight for share in self.shares]), join)

    def _prune(self, name: str, number: int, delta: Tensor) -> Tensor:
        density = self.shares[number].density
        if self.method == "ties":
            return keep_largest(delta, density)
        return keep_random(delta, density, self.seed, number, name) if self.method.startswith("dare") else delta


def interpolate(first: Tensor, second: Tensor, share: float) -> Tensor:
    """``share`` of the way from ``first`` to ``second`` along the arc between them (SLERP), each tensor as one vector.

    Where they are parallel or one is zero, along the straight line. float32 of any one shape.
    """
    lengths = [math.sqrt(_dot(tensor, tensor)) for tensor in (first, second)]
    cosine = _dot(first, second) / (lengths[0] * lengths[1]) if all(lengths) else 1.0
    if abs(cosine) > _PARALLEL:
        return first * (1 - share) + second * share
    angle = math.acos(cosine)
    return first * (math.sin((1 - share) * angle) / math.sin(angle)) + second * (math.sin(share * angle) / math.sin(angle))


def _dot(first: Tensor, second: Tensor) -> float:
    """The scalar product of two tensors, in float64."""
    mine, other = first.flatten(), second.flatten()
    blocks = [slice(start, start + _BLOCK) for start in range(0, len(mine), _BLOCK)]
    return _sum(torch.tensor([_sum(mine[block].double() * other[block].double()) for block in blocks], dtype=torch.float64))


def _sum(values: Tensor) -> float:
    """Halves added to halves: one order on every machine, which no library's own sum promises."""
    while len(values) > 1:
        half = len(values) // 2
        rest = values[2 * half :]
        values = torch.cat([values[:half] + values[half : 2 * half], rest])
    return float(values.sum())


def _agreeing(deltas: Sequence[Tensor], weights: Tensor) -> Tensor:
    """Per element the mean of the weighted changes whose sign is that of the sum of all (peft's `ties` after pruning)."""
    stacked = torch.stack(list(deltas))
    mask = calculate_majority_sign_mask(stacked, method="total")
    return disjoint_merge(stacked * reshape_weight_task_tensors(stacked, weights), mask)


def _in_blocks(deltas: Sequence[Tensor], weights: Tensor, join: Callable[[list[Tensor], Tensor], Tensor]) -> Tensor:
    flat = [delta.flatten() for delta in deltas]
    joined = torch.empty_like(flat[0])
    for start in range(0, len(joined), _BLOCK):
        parts = [delta[start : start + _BLOCK] for delta in flat]
        length = len(parts[0])
        filled = [torch.nn.functional.pad(part, (0, -length % _WHOLE)) for part in parts]
        joined[start : start + _BLOCK] = join(filled, weights)[:length]
    return joined.view(deltas[0].shape)

"""Dion (arXiv 2504.05295): orthonormal updates of matrices, from a momentum that one power iteration factorises."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch.optim import Optimizer

_LEAST_NORM = 1e-8
"""A column of a gradient without that direction stays zero instead of becoming noise of norm one."""


class Dion(Optimizer):
    """Algorithm 1 of the paper on one device, in fp32: each matrix is whole.

    The momentum ``M`` plus the gradient is approximated by ``P Rᵀ`` of rank ``r``; the update is ``P`` times the columns of ``R``
    at length one, times ``sqrt(rows / columns)``. What the approximation leaves stays in the momentum.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.01,
        momentum: float = 0.95,
        rank_fraction: float = 1.0,
        rank_multiple_of: int = 1,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(params, defaults | {"rank_fraction": rank_fraction, "rank_multiple_of": rank_multiple_of})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Change every matrix that has a gradient. A closure is not called."""
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is not None:
                    self._update(matrix, matrix.grad, group)

    def _update(self, matrix: torch.Tensor, gradient: torch.Tensor, group: dict[str, Any]) -> None:
        state = self.state[matrix]
        if not state:
            rank = rank_of(matrix.shape, group["rank_fraction"], group["rank_multiple_of"])
            state["momentum"] = torch.zeros_like(matrix, dtype=torch.float32)
            state["basis"] = first_basis(matrix.shape[1], rank).to(matrix.device)
        kept = state["momentum"].add_(gradient)
        left = torch.linalg.qr(kept @ state["basis"]).Q
        right = kept.T @ left
        kept.sub_(left @ right.T, alpha=1 - group["momentum"])
        state["basis"] = right / right.norm(dim=0, keepdim=True).clamp_(min=_LEAST_NORM)
        scale = group["lr"] * math.sqrt(matrix.shape[0] / matrix.shape[1])
        matrix.mul_(1 - group["lr"] * group["weight_decay"]).sub_(left @ state["basis"].T, alpha=scale)


def rank_of(shape: torch.Size | tuple[int, ...], fraction: float, multiple: int) -> int:
    """Rank of the approximation: a share of the smaller side, rounded up to a multiple, and never more than that side."""
    smaller = min(shape)
    return min(smaller, math.ceil(fraction * smaller / multiple) * multiple)


def first_basis(columns: int, rank: int) -> torch.Tensor:
    """Where the power iteration starts, ``[columns, rank]``: the same on every process, and no draw from the run's generator."""
    return torch.randn(columns, rank, generator=torch.Generator().manual_seed(columns * 2**20 + rank))

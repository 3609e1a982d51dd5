"""SinkGD (arXiv 2502.06742): gradient descent on normalised gradients, without any state."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch.optim import Optimizer

_LEAST_NORM = 1e-8


class SinkGD(Optimizer):
    """Rows and columns of every gradient are brought to equal lengths in turn; ``scale`` makes up for the size of such updates."""

    def __init__(
        self, params: Iterable[Any], lr: float = 0.02, iterations: int = 5, scale: float = 0.05, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "iterations": iterations, "scale": scale, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Change every matrix that has a gradient. A closure is not called."""
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is not None:
                    update = balanced(matrix.grad.float(), group["iterations"])
                    matrix.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=group["lr"] * group["scale"])


def balanced(gradient: torch.Tensor, iterations: int) -> torch.Tensor:
    """Rows of length ``sqrt(columns)``, then columns of length ``sqrt(rows)``, ``iterations`` times over: ``[rows, columns]``."""
    rows, columns = gradient.shape
    for _ in range(iterations):
        gradient = gradient * (math.sqrt(columns) / gradient.norm(dim=1, keepdim=True).clamp(min=_LEAST_NORM))
        gradient = gradient * (math.sqrt(rows) / gradient.norm(dim=0, keepdim=True).clamp(min=_LEAST_NORM))
    return gradient

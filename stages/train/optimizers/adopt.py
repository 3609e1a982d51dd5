"""ADOPT (arXiv 2411.02853): Adam that converges for every second decay."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.optim import Optimizer


class Adopt(Optimizer):
    """A gradient is divided by the second moment of those before it, clipped, and only then averaged.

    Algorithm 2 of the paper, with its clipping at the fourth root of the step, and decoupled weight decay. The first step only
    measures.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.9999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        clip_exponent: float | None = 0.25,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "clip_exponent": clip_exponent})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Change every parameter that has a gradient. A closure is not called."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)

    def _update(self, parameter: torch.Tensor, gradient: torch.Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state.update(step=1, exp_avg=torch.zeros_like(parameter), exp_avg_sq=gradient.square())
            return
        first, second = group["betas"]
        normed = gradient / state["exp_avg_sq"].sqrt().clamp_(min=group["eps"])
        if group["clip_exponent"] is not None:
            bound = state["step"] ** group["clip_exponent"]
            normed.clamp_(-bound, bound)
        state["exp_avg"].lerp_(normed, 1 - first)
        parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(state["exp_avg"], alpha=-group["lr"])
        state["exp_avg_sq"].mul_(second).addcmul_(gradient, gradient, value=1 - second)
        state["step"] += 1

"""Updates during the backward pass: a gradient is used and dropped as soon as it is there, so that they never exist all at once."""

from __future__ import annotations

from typing import Any

import torch
from torch.optim import Optimizer


class Layerwise(Optimizer):
    """Any optimizer that passes over parameters without a gradient: at each moment only one has one.

    Groups and state are those of the optimizer inside, so that schedules and checkpoints see an ordinary one.
    """

    def __init__(self, inner: Optimizer) -> None:
        # Not the constructor of Optimizer: groups and state are those of the one inside.
        self._inner = inner
        for group in inner.param_groups:
            for parameter in group["params"]:
                if parameter.requires_grad:
                    parameter.register_post_accumulate_grad_hook(self._use)

    def _use(self, parameter: torch.Tensor) -> None:
        self._inner.step()
        parameter.grad = None

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """Groups of the optimizer inside."""
        return self._inner.param_groups

    @property
    def state(self) -> Any:  # type: ignore[override]
        """State of the optimizer inside."""
        return self._inner.state

    @property
    def defaults(self) -> dict[str, Any]:  # type: ignore[override]
        """Defaults of the optimizer inside."""
        return self._inner.defaults

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Nothing: the backward pass has done it."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Nothing: no gradient is left."""

    def state_dict(self) -> dict[str, Any]:
        """State of the optimizer inside."""
        return self._inner.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the optimizer inside."""
        self._inner.load_state_dict(state_dict)

"""Two optimizers that together train one model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.optim import Optimizer


class Joined(Optimizer):
    """Acts as one optimizer. Its groups are those of all parts in their order, and they are the same objects."""

    def __init__(self, parts: Sequence[Optimizer]) -> None:
        # Not the constructor of Optimizer: groups and state are those of the parts.
        self._parts = tuple(parts)

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """Groups of all parts. Loading a checkpoint gives the parts new ones."""
        return [group for part in self._parts for group in part.param_groups]

    @property
    def state(self) -> dict[Any, Any]:  # type: ignore[override]
        """State by parameter, to look at."""
        return {parameter: state for part in self._parts for parameter, state in part.state.items()}

    @property
    def defaults(self) -> dict[str, Any]:  # type: ignore[override]
        """Those of the first part."""
        return self._parts[0].defaults

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """A step of every part. A closure is not called."""
        for part in self._parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients."""
        for part in self._parts:
            part.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """The state of every part, in order."""
        return {"parts": [part.state_dict() for part in self._parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore every part."""
        for part, state in zip(self._parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)

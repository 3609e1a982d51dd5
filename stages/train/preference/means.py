"""Means of what TRL's losses say of single batches, each weighted by the rows it was taken over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch


class Means:
    """Weighted sums by name.

    Attributes:
        sums: float64 ``[names, 2]``: the weighted sum, and the weights.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.sums = torch.zeros(len(self.names), 2, dtype=torch.float64)

    def add(self, values: Mapping[str, float], weights: Mapping[str, float]) -> None:
        """Values of one batch; those that it does not have are left out."""
        for place, name in enumerate(self.names):
            if name in values and weights[name]:
                self.sums[place] += torch.tensor([values[name] * weights[name], weights[name]], dtype=torch.float64)

    def take(self) -> dict[str, float]:
        """The means of what was added since the last time."""
        found = {name: total / weight for name, (total, weight) in zip(self.names, self.sums.tolist(), strict=True) if weight}
        self.sums.zero_()
        return found

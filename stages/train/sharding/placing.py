"""Where a model is before DeepSpeed places it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from pipeline.options.views import TrainOptions

_ANYWHERE = (None, "varlen", "sdpa", "eager")
"""Attentions that compute on a CPU too."""


@contextmanager
def at_its_kernels(model: Any, options: TrainOptions, device: torch.device) -> Iterator[None]:
    """For forward passes before training: DeepSpeed moves weights from RAM when it begins, and kernels for GPUs want them there."""
    if not options.deepspeed or options.attn_implementation in _ANYWHERE or model.device.type == device.type:
        yield
        return
    model.to(device)
    try:
        yield
    finally:
        model.to("cpu")  # shards are made from there

"""Whether the rows of a micro-batch are joined into one."""

from __future__ import annotations

from typing import Any

from pipeline.options.views import TrainOptions
from stages.train.attention import varlen

_LINEAR = (varlen.NAME, "flash_attention_2", "flash_attention_3")
"""Attention whose time grows with the rows and not with the square of what they are joined to."""


def joins_rows(options: TrainOptions, model: Any) -> bool:
    """What batch_flattening (of rows) and multipack_real_batches (of bins) ask for; ``auto`` where the kernel gains by it."""
    if options.batch_flattening == "auto":
        return model.config._attn_implementation in _LINEAR
    return options.batch_flattening is True or options.multipack_real_batches is False

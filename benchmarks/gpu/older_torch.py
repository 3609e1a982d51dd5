"""torch 2.11, which machines with a GPU may have: its variable-length attention takes fewer heads of keys without being told so.

The pinned version (2.13) wants ``enable_gqa``; an earlier one does not know the word. Nothing is replaced where it is known.
"""

from __future__ import annotations

import inspect
from functools import wraps
from typing import Any


def forget_fewer_heads() -> None:
    """Leave ``enable_gqa`` out where torch does not know it."""
    from torch.nn.attention import varlen

    attend = varlen.varlen_attn
    if "enable_gqa" in inspect.signature(attend).parameters:
        return

    @wraps(attend)
    def attend_without(*tensors: Any, enable_gqa: bool = False, **settings: Any) -> Any:
        return attend(*tensors, **settings)

    varlen.varlen_attn = attend_without

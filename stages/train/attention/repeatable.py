"""Fused attention whose gradients are the same bits every time, on a GPU.

Its kernels add up gradients in whatever order threads come, unless torch is to fail rather than allow that. While torch only warns,
as it does through a run (an operation without another form would end it), they take the faster order. So attention alone is
computed under the strict setting: forwards, where the kernel is chosen, and backwards.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any

import torch

WORKSPACES = (":4096:8", ":16:8")
"""Settings of cuBLAS under which its results do not depend on which stream finishes first."""

_WARNS, _FAILS = 1, 2
_KERNELS = re.compile(r"ScaledDotProduct|varlen_attn")
_DEPTH = 4  # views and casts between a kernel and what it was called for


def repeatably(attend: Callable[..., Any], query: torch.Tensor, *given: Any, **settings: Any) -> torch.Tensor:
    """The tensor that ``attend`` makes of all the rest. Compiled code calls kernels without this; the run record then says so."""
    output: torch.Tensor
    if torch.compiler.is_compiling() or not _wanted(query):
        output = attend(query, *given, **settings)
        return output
    torch.set_deterministic_debug_mode(_FAILS)
    try:
        output = attend(query, *given, **settings)
    finally:
        torch.set_deterministic_debug_mode(_WARNS)
    for node in _kernels(output.grad_fn):
        node.register_prehook(lambda _: torch.set_deterministic_debug_mode(_FAILS))
        node.register_hook(lambda *_: torch.set_deterministic_debug_mode(_WARNS))
    return output


def _wanted(tensor: torch.Tensor) -> bool:
    """Without its setting cuBLAS has no deterministic form, and the strict way would end the run for that."""
    return tensor.is_cuda and torch.get_deterministic_debug_mode() == _WARNS and os.environ.get("CUBLAS_WORKSPACE_CONFIG") in WORKSPACES


def _kernels(node: Any, depth: int = _DEPTH) -> list[Any]:
    """The node of the kernel that ``node`` hands gradients to; none where attention is plain products."""
    if node is None or depth == 0:
        return []
    if _KERNELS.search(node.name()):
        return [node]
    return next((found for following, _ in node.next_functions if (found := _kernels(following, depth - 1))), [])

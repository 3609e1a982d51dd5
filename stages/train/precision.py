"""Which numbers the model is computed in, on the device that is there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch

from pipeline.errors import RegrowError
from pipeline.options.views import TrainOptions

Precision = Literal["fp32", "bf16", "fp16"]


def choose_precision(options: TrainOptions, say: Callable[[str], None]) -> Precision:
    """The precision of the forward pass; weights and optimizer states are fp32 in any case.

    Raises:
        RegrowError: a precision was asked for that this device cannot do, or two at once.
    """
    if options.fp16 and options.bf16 is True:
        raise RegrowError("bf16: true and fp16: true exclude each other.", "Set one of them to false.")
    cuda = torch.cuda.is_available()
    if options.fp16:
        if not cuda:
            raise RegrowError(
                "fp16: true needs a CUDA device, and this machine has none.", "Set fp16: false; bf16: auto computes in fp32 on a CPU."
            )
        return "fp16"
    capable = cuda and torch.cuda.is_bf16_supported(including_emulation=False)
    if options.bf16 == "auto":
        return "bf16" if capable else "fp32"
    if options.bf16 and cuda and not capable:
        raise RegrowError("bf16: true, but this CUDA device has no bfloat16.", "Set bf16: auto (fp32 here), or fp16: true.")
    if options.bf16 and not cuda and not _cpu_has_bf16():
        say("bf16: true is slow here: this CPU has no bfloat16 instructions. fp32 (bf16: auto) is more than ten times faster.")
    return "bf16" if options.bf16 else "fp32"


def _cpu_has_bf16() -> bool:
    """AVX512-BF16, AMX-BF16 and their like. With them bf16 was 1.8 times as fast as fp32, without them 14 times slower."""
    return any("bf16" in name and present is True for name, present in torch.cpu.get_capabilities().items())

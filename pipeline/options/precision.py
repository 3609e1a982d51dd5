"""Number formats and compilation. Read by train."""

from __future__ import annotations

from typing import Literal

from pipeline.options.schema import Group, not_yet, option


class Precision(Group):
    """Numbers the model is computed in."""

    bf16: Literal["auto"] | bool = option(
        "auto", "bfloat16 autocast; `auto` takes it on a GPU that supports it and fp32 elsewhere.", later=("full",)
    )
    fp16: bool = option(False, "float16 autocast.", needs="a CUDA GPU")
    bfloat16: bool | None = not_yet("Hold and compute everything in bfloat16.", needs="a CUDA GPU (Ampere or newer)")
    float16: bool | None = not_yet("Hold and compute everything in float16.", needs="a CUDA GPU")
    float32: bool | None = not_yet("Hold the weights in fp32, as regrow does.", idle=(True, False))
    tf32: bool | None = not_yet("TensorFloat-32 matrix products.", needs="a CUDA GPU (Ampere or newer)")
    fp8: bool | None = not_yet("8-bit float matrix products with torchao.", needs="a CUDA GPU (Hopper or newer) and torchao")
    fp8_enable_fsdp_float8_all_gather: bool | None = not_yet("Send FSDP shards in 8 bits.", needs="several CUDA GPUs (Hopper or newer)")


class Compilation(Group):
    """torch.compile."""

    torch_compile: Literal["auto"] | bool | None = not_yet("Compile the model.")
    torch_compile_backend: str | None = not_yet("Compiler; default inductor.", idle=())
    torch_compile_mode: Literal["default", "reduce-overhead", "max-autotune"] | None = not_yet("What to compile for.", idle=())

"""Number formats and compilation. Read by train."""

from __future__ import annotations

from typing import Literal

from pipeline.options.schema import Group, not_yet, option


class Precision(Group):
    """Numbers the model is computed in."""

    bf16: Literal["auto", "full"] | bool = option(
        "auto", "bfloat16 autocast; `auto` takes it on a GPU that supports it and fp32 elsewhere; `full` holds the weights in it too."
    )
    fp16: bool = option(False, "float16 autocast.", needs="a CUDA GPU")
    bfloat16: bool = option(False, "Hold and compute everything in bfloat16, without autocast; the same as `bf16: full`.")
    float16: bool = option(False, "Hold and compute everything in float16, without autocast.", needs="a CUDA GPU")
    float32: bool = option(False, "Hold and compute everything in fp32, on a GPU too.")
    tf32: bool | None = option(None, "TensorFloat-32 products of fp32 matrices.", needs="a CUDA GPU (Ampere or newer)")
    fp8: bool = option(
        False,
        "8-bit float products in linear layers with torchao, the rest in bfloat16.",
        needs="a CUDA GPU (Ada, Hopper or newer)",
        extras=(("True", "torchao", "int8"),),
    )
    fp8_enable_fsdp_float8_all_gather: bool | None = not_yet("Send FSDP shards in 8 bits.", needs="several CUDA GPUs (Hopper or newer)")


class Compilation(Group):
    """torch.compile."""

    torch_compile: Literal["auto"] | bool = option(
        False, "Compile the model; `auto` does on a GPU without DeepSpeed. A CPU needs a C++ compiler."
    )
    torch_compile_backend: str | None = option(None, "Compiler; default inductor.", min_length=1)
    torch_compile_mode: Literal["default", "reduce-overhead", "max-autotune"] | None = option(None, "What to compile for.")

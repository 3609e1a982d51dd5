"""Attention and fused kernels. Read by train."""

from __future__ import annotations

from typing import Any, Literal

from pipeline.options.schema import Group, not_yet, option, refused, renamed

_FLASH = "a CUDA GPU and flash-attn"
_TRITON = "a CUDA GPU (Triton kernels)"
KERNELS_TO_COME = ("xformers", "sage", "fp8", "paged_attention", "flash_attention_4", "kernels-community/*")
Kernel = Literal["varlen", "sdpa", "eager", "flash_attention_2", "flash_attention_3", "flex_attention"]


class Attention(Group):
    """Which attention kernel."""

    attn_implementation: Kernel | None = option(
        None,
        "Attention kernel; default varlen, which computes the rows of a bin one by one, where the model allows it. "
        "Flash and flex attention need a CUDA GPU.",
        extras=(("flash_attention_2", "flash_attn", "flash-attn"),),
        later=KERNELS_TO_COME,
    )
    sdp_attention: bool | None = renamed("attn_implementation: sdpa", "Old switch for PyTorch's own attention.")
    eager_attention: bool | None = renamed("attn_implementation: eager", "Old switch for plain matrix products.")
    flash_attention: bool | None = renamed("attn_implementation: flash_attention_2", "Old switch for FlashAttention 2.")
    flex_attention: bool | None = renamed("attn_implementation: flex_attention", "Old switch for FlexAttention.")
    xformers_attention: bool | None = renamed("attn_implementation: xformers", "Old switch for xFormers.")
    flex_attn_compile_kwargs: dict[str, Any] | None = not_yet("Compiler settings of FlexAttention.", needs="a CUDA GPU", idle=({},))
    scaling_softmax: bool | None = not_yet("Scale attention with the logarithm of the length (SSMax).", needs="FlexAttention")
    scaling_softmax_factor: float | None = not_yet("Its factor; default 0.43.", idle=())
    scaling_softmax_bias: float | None = not_yet("Its bias; default 0.", idle=(0,))
    s2_attention: bool | None = refused(
        "Shifted sparse attention.", "Axolotl removed it", "lengthen the context with overrides_of_model_config.rope_scaling"
    )
    flash_optimum: bool | None = refused("BetterTransformer.", "optimum removed it", "sdpa, the default, is what it used")


class FusedKernels(Group):
    """Kernels that compute several steps in one."""

    lora_mlp_kernel: bool | None = not_yet("Fused LoRA in MLP layers.", needs=_TRITON)
    lora_qkv_kernel: bool | None = not_yet("Fused LoRA in query, key and value.", needs=_TRITON)
    lora_o_kernel: bool | None = not_yet("Fused LoRA in the attention's output.", needs=_TRITON)
    flash_attn_cross_entropy: bool | None = not_yet("FlashAttention's loss kernel.", needs=_FLASH)
    flash_attn_fuse_mlp: bool | None = not_yet("FlashAttention's fused MLP, Llama only.", needs=_FLASH)
    flash_attn_rms_norm: bool | None = refused("FlashAttention's RMS norm.", "Axolotl removed it")

"""Names that Axolotl removed. Read by configure alone."""

from __future__ import annotations

from pipeline.options.schema import Group, refused

_UNSLOTH = "Axolotl removed its Unsloth kernels"
_KERNELS = "write `lora_mlp_kernel`, `lora_qkv_kernel` and `lora_o_kernel` once regrow supports them"


class Retired(Group):
    """Unsloth's kernels."""

    unsloth_cross_entropy_loss: bool | None = refused("Fused loss.", _UNSLOTH, "write `chunked_cross_entropy` once regrow supports it")
    unsloth_lora_mlp: bool | None = refused("Fused LoRA in MLP layers.", _UNSLOTH, _KERNELS)
    unsloth_lora_qkv: bool | None = refused("Fused LoRA in query, key and value.", _UNSLOTH, _KERNELS)
    unsloth_lora_o: bool | None = refused("Fused LoRA in the attention's output.", _UNSLOTH, _KERNELS)
    unsloth_rms_norm: bool | None = refused("Fused RMS norm.", _UNSLOTH)
    unsloth_rope: bool | None = refused("Fused rotary positions.", _UNSLOTH)

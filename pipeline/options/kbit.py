"""Base models in few bits while an adapter is trained. Read by train."""

from __future__ import annotations

from typing import Any, Literal

from pipeline.options.schema import Group, not_yet

_BITSANDBYTES = "a CUDA GPU and bitsandbytes"


class QuantisedBase(Group):
    """How the frozen weights are held."""

    load_in_8bit: bool | None = not_yet("Hold the base model in 8 bits.", False, needs=_BITSANDBYTES)
    load_in_4bit: bool | None = not_yet("Hold the base model in 4 bits (NF4).", False, needs=_BITSANDBYTES)
    bnb_config_kwargs: dict[str, Any] | None = not_yet("Changes to the 4-bit settings.", needs=_BITSANDBYTES, idle=({},))
    gptq: bool | None = not_yet("The base model is quantised with GPTQ.", needs="a CUDA GPU and gptqmodel")
    qlora_sharded_model_loading: bool | None = not_yet(
        "Stream 4-bit weights to all GPUs under FSDP.", False, needs="several CUDA GPUs and bitsandbytes"
    )
    model_quantization_config: Literal["Mxfp4Config"] | None = not_yet(
        "Quantisation that transformers applies while loading.", needs="a CUDA GPU"
    )
    model_quantization_config_kwargs: dict[str, Any] | None = not_yet("Its settings.", needs="a CUDA GPU", idle=({},))

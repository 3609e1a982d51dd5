"""Base models in few bits while an adapter is trained. Read by train."""

from __future__ import annotations

from typing import Any, Literal

from pipeline.options.schema import Group, not_yet, option

_BITSANDBYTES = (("True", "bitsandbytes", "bitsandbytes"),)


class QuantisedBase(Group):
    """How the frozen weights are held."""

    load_in_8bit: bool = option(False, "Hold the base model in 8 bits (LLM.int8).", extras=_BITSANDBYTES)
    load_in_4bit: bool = option(False, "Hold the base model in 4 bits (NF4, scales quantised too), as in QLoRA.", extras=_BITSANDBYTES)
    bnb_config_kwargs: dict[str, Any] | None = option(
        None,
        "Changes to these settings, as transformers' BitsAndBytesConfig names them: bnb_4bit_quant_type, llm_int8_threshold and others.",
    )
    gptq: bool | None = not_yet("The base model is quantised with GPTQ.", needs="a CUDA GPU and gptqmodel")
    qlora_sharded_model_loading: bool | None = not_yet(
        "Stream 4-bit weights to all GPUs under FSDP.", False, needs="several CUDA GPUs and bitsandbytes"
    )
    model_quantization_config: Literal["Mxfp4Config"] | None = not_yet(
        "Quantisation that transformers applies while loading.", needs="a CUDA GPU"
    )
    model_quantization_config_kwargs: dict[str, Any] | None = not_yet("Its settings.", needs="a CUDA GPU", idle=({},))

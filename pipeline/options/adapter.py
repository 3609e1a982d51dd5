"""LoRA and what belongs to it. Read by train alone: merge takes what it needs from the adapter's own config."""

from __future__ import annotations

from typing import Literal

from pipeline.options.schema import Group, Nested, option, refused

INITIALISATIONS = ("gaussian", "pissa", "olora", "orthogonal", "eva", "loftq", "corda", "lora_ga")
"""Names of `peft_init_lora_weights`; `pissa_niter_4` (any number) is a faster `pissa`."""


class Adapter(Group):
    """No adapter means full fine-tuning."""

    adapter: Literal["lora", "qlora"] | None = option(
        None,
        "Train a LoRA adapter instead of all weights; qlora: over a base model in 4 bits.",
        gone=(("llama-adapter", "its prompts are no part of any weight: nothing to merge, quantise or serve", "write `adapter: lora`"),),
    )
    lora_r: int = option(8, "Rank.", ge=1, le=65536)
    lora_alpha: int = option(16, "Scale numerator: the update is scaled by alpha / r.", ge=1)
    lora_dropout: float = option(0.0, "Dropout on the adapter's input.", ge=0, lt=1)
    lora_target_modules: str | list[str] | None = option(None, "Modules to adapt, by name or one regular expression.")
    lora_target_linear: bool = option(False, "Adapt every linear layer except the output head.")
    peft_use_dora: bool = option(False, "Weight-decomposed LoRA (DoRA).")
    peft_use_rslora: bool = option(False, "Scale by alpha / sqrt(r) (rsLoRA).")
    lora_model_dir: str | None = option(None, "Folder of an adapter to go on from; its configuration decides.")
    lora_target_parameters: str | list[str] | None = option(None, "Single parameters to adapt, such as fused expert weights.")
    lora_exclude_modules: str | list[str] | None = option(None, "Modules to leave out, by name or one regular expression.", newer=True)
    lora_modules_to_save: list[str] | None = option(None, "Modules that are trained whole and saved with the adapter.")
    lora_fan_in_fan_out: bool | None = option(None, "Weights are stored transposed, as in GPT-2's Conv1D; default as the layers are.")
    lora_rank_pattern: dict[str, int] | None = option(None, "Rank of single modules, by name pattern.", newer=True)
    lora_alpha_pattern: dict[str, int] | None = option(None, "Alpha of single modules, by name pattern.", newer=True)
    lora_on_cpu: bool = option(False, "Load the adapter of lora_model_dir on the CPU; merging is always done there.", execution=True)
    merge_lora: bool | None = refused("In Axolotl: set by a command.", "the merge stage merges every adapter")


class LoftQ(Nested):
    """LoftQ initialisation (arXiv 2310.08659)."""

    loftq_bits: int = option(4, "Bits of the quantised base.", ge=2, le=8)


class Peft(Nested):
    """Settings that go to PEFT as they are."""

    loftq_config: LoftQ | None = option(None, "Begin with LoftQ, which rounds the base weights; gives a whole model.")


class AdapterDetails(Group):
    """Which layers, how it begins, what else is trained."""

    peft: Peft | None = option(None, "Settings for PEFT.")
    peft_layers_to_transform: list[int] | None = option(None, "Layers to adapt, by number; default all.")
    peft_layers_pattern: list[str] | None = option(None, "Names of the lists that these numbers count in.")
    peft_layer_replication: list[tuple[int, int]] | None = option(
        None, "Ranges of layers [from, to) to build the model of; layers may repeat."
    )
    peft_init_lora_weights: bool | str = option(
        True, "How the adapter begins: true, false, gaussian, pissa, pissa_niter_4, olora, orthogonal, eva, loftq, corda or lora_ga."
    )
    peft_trainable_token_indices: list[int] | dict[str, list[int]] | None = option(None, "Token ids whose embeddings are trained.")
    peft_ensure_weight_tying: bool = option(False, "Adapt tied weights once, so that they stay tied.")
    peft_autocast_adapter_dtype: bool = option(True, "Keep the adapter in fp32 over a base model in fewer bits.")

"""LoRA and what belongs to it. Read by train alone: merge takes what it needs from the adapter's own config."""

from __future__ import annotations

from typing import Literal

from pipeline.options.schema import Group, Nested, not_yet, option, refused


class Adapter(Group):
    """No adapter means full fine-tuning."""

    adapter: Literal["lora"] | None = option(None, "Train a LoRA adapter instead of all weights.", later=("qlora", "llama-adapter"))
    lora_r: int = option(8, "Rank.", ge=1, le=65536)
    lora_alpha: int = option(16, "Scale numerator: the update is scaled by alpha / r.", ge=1)
    lora_dropout: float = option(0.0, "Dropout on the adapter's input.", ge=0, lt=1)
    lora_target_modules: str | list[str] | None = option(None, "Modules to adapt, by name or one regular expression.")
    lora_target_linear: bool = option(False, "Adapt every linear layer except the output head.")
    peft_use_dora: bool = option(False, "Weight-decomposed LoRA (DoRA).")
    peft_use_rslora: bool = option(False, "Scale by alpha / sqrt(r) (rsLoRA).")
    lora_model_dir: str | None = not_yet("Adapter to go on from.")
    lora_target_parameters: str | list[str] | None = not_yet("Single parameters to adapt, such as fused expert weights.", idle=([],))
    lora_exclude_modules: str | list[str] | None = not_yet("Modules to leave out.", idle=([],), newer=True)
    lora_modules_to_save: list[str] | None = not_yet("Modules that are trained whole and saved with the adapter.", idle=([],))
    lora_fan_in_fan_out: bool | None = not_yet("Weights are stored transposed, as in GPT-2's Conv1D.")
    lora_rank_pattern: dict[str, int] | None = not_yet("Rank of single modules, by name pattern.", idle=({},), newer=True)
    lora_alpha_pattern: dict[str, int] | None = not_yet("Alpha of single modules, by name pattern.", idle=({},), newer=True)
    lora_on_cpu: bool | None = not_yet("Load and merge the adapter on the CPU.", execution=True)
    merge_lora: bool | None = refused("In Axolotl: set by a command.", "the merge stage merges every adapter")


class LoftQ(Nested):
    """LoftQ initialisation (arXiv 2310.08659)."""

    loftq_bits: int = not_yet("Bits of the quantised base.", 4, idle=(), ge=2, le=8)


class Peft(Nested):
    """Settings that go to PEFT as they are."""

    loftq_config: LoftQ | None = not_yet("Initialise the adapter with LoftQ.")


class AdapterDetails(Group):
    """Which layers, how it begins, what else is trained."""

    peft: Peft | None = not_yet("Settings for PEFT.", idle=({},))
    peft_layers_to_transform: list[int] | None = not_yet("Layers to adapt, by number; default all.", idle=([],))
    peft_layers_pattern: list[str] | None = not_yet("Names of the lists that these numbers count in.", idle=([],))
    peft_layer_replication: list[tuple[int, int]] | None = not_yet("Ranges of layers to repeat.", idle=([],))
    peft_init_lora_weights: bool | str | None = not_yet(
        "How the adapter begins: true, false, gaussian, pissa, olora, eva and others.", idle=(True,)
    )
    peft_trainable_token_indices: list[int] | dict[str, list[int]] | None = not_yet(
        "Token ids whose embeddings are trained.", idle=([], {})
    )
    peft_ensure_weight_tying: bool | None = not_yet("Adapt tied weights once.")
    peft_autocast_adapter_dtype: bool | None = not_yet("Keep the adapter in fp32, as PEFT does.", idle=(True,))

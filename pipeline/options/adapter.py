"""LoRA (C21). Read by train alone: merge takes what it needs from the adapter's own config."""

from __future__ import annotations

from typing import Literal

from pipeline.options.schema import Group, option


class Adapter(Group):
    """No adapter means full fine-tuning."""

    adapter: Literal["lora"] | None = option(None, "Train a LoRA adapter instead of all weights.")
    lora_r: int = option(8, "Rank.", ge=1)
    lora_alpha: int = option(16, "Scale numerator: the update is scaled by alpha / r.", ge=1)
    lora_dropout: float = option(0.0, "Dropout on the adapter's input.", ge=0, lt=1)
    lora_target_modules: str | list[str] | None = option(None, "Modules to adapt, by name or one regular expression.")
    lora_target_linear: bool = option(False, "Adapt every linear layer except the output head.")
    peft_use_dora: bool = option(False, "Weight-decomposed LoRA (DoRA).")
    peft_use_rslora: bool = option(False, "Scale by alpha / sqrt(r) (rsLoRA).")

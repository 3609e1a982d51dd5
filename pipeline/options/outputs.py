"""Options of merge, quantize and eval that Axolotl has no key for, each nested under its stage's name."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from pipeline.options.schema import Group, option


class MergeGroup(BaseModel):
    """Options of the merge stage."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_shard_size_mb: int = option(2000, "Largest safetensors file, in MB (1e6 bytes); peak memory is about one file.", ge=1)


class Merge(Group):
    """Read by merge."""

    merge: MergeGroup = option(MergeGroup(), "Options of the merge stage.")


class QuantizeGroup(BaseModel):
    """Options of the quantize stage."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    formats: list[Literal["int8", "q8_0"]] = option(
        ["int8", "q8_0"], "Formats to write: int8 (torchao weight-only, a Hugging Face folder), q8_0 (one GGUF file)."
    )


class Quantize(Group):
    """Read by quantize."""

    quantize: QuantizeGroup = option(QuantizeGroup(), "Options of the quantize stage.")


class EvalGroup(BaseModel):
    """Options of the eval stage."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    batch_size: int = option(16, "Rows per forward pass.", ge=1)
    choices: list[str] | None = option(
        None, "Possible answers. Accuracy then asks which of them the model finds likeliest (by first token).", min_length=2
    )
    samples: int = option(8, "Held-out prompts that every model answers, side by side in the report.", ge=0)
    max_new_tokens: int = option(64, "Longest sample answer, in tokens.", ge=1)


class Evaluation(Group):
    """Read by eval."""

    eval: EvalGroup = option(EvalGroup(), "Options of the eval stage.")

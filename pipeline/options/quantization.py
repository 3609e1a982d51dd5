"""Quantisation after training, and training for it. Read by quantize and train."""

from __future__ import annotations

from typing import Literal

from pipeline.options.schema import Group, Nested, not_yet, option

Dtype = Literal["int4", "int8", "float8_e4m3fn", "fp8", "nvfp4", "mxfp4"]


class QuantizeGroup(Nested):
    """Options of the quantize stage, which Axolotl has no key for."""

    formats: list[Literal["int8", "q8_0"]] = option(
        ["int8", "q8_0"],
        "Formats to write: int8 (torchao weight-only, a Hugging Face folder), q8_0 (one GGUF file).",
        extras=(("int8", "torchao", "int8"), ("q8_0", "gguf", "gguf")),
    )


class Quantize(Group):
    """Read by quantize."""

    quantize: QuantizeGroup = option(QuantizeGroup(), "Options of the quantize stage.")


class AfterTraining(Nested):
    """Axolotl's quantisation after training; only some pairs of dtypes exist."""

    weight_dtype: Dtype = not_yet("Number format of weights.", "int8", idle=())
    activation_dtype: Dtype | None = not_yet("Number format of activations; default unquantised.", idle=())
    quantize_embedding: bool | None = not_yet("Quantise the embeddings too.")
    group_size: int | None = not_yet("Weights that share a scale.", 32, idle=(), ge=1)


class WhileTraining(Nested):
    """Quantisation-aware training: rounding is simulated so that the weights learn to bear it."""

    activation_dtype: Dtype | None = not_yet("Simulated number format of activations.", idle=())
    weight_dtype: Dtype = not_yet("Simulated number format of weights.", "int8", idle=())
    quantize_embedding: bool | None = not_yet("Simulate it in the embeddings too.", False)
    group_size: int | None = not_yet("Weights that share a scale.", 32, idle=(), ge=1)
    fake_quant_after_n_steps: int | None = not_yet("Steps of plain training before it begins.", idle=(0,), ge=0)


class PostTrainingQuantization(Group):
    """Read by quantize."""

    quantization: AfterTraining | None = not_yet("Quantise the final model with torchao; see quantize.formats for what works.")


class QuantizationAwareTraining(Group):
    """Read by train."""

    qat: WhileTraining | None = not_yet("Train with simulated quantisation.", needs="torchao")

"""Quantisation after training, and training for it. Read by quantize and train."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from pipeline.options.schema import LARGEST, Group, Nested, option
from pipeline.quantized_formats import EXTRAS, BnbType, Format, GgufType, Scheme, ShortName, spelled_out
from pipeline.torchao_pairs import Dtype

_TORCHAO = (("*", "torchao", "int8"),)
_K_QUANTS = tuple(
    (name, "gguf-py reads K- and IQ-quants and does not write them", f"write {near}, or run llama.cpp's llama-quantize on f16")
    for near, names in {
        "q8_0": ("q6_k",),
        "q5_1": ("q5_k", "q5_k_m", "q5_k_s"),
        "q4_1": ("q4_k", "q4_k_m", "q4_k_s", "iq4_nl", "iq4_xs"),
        "q4_0": ("q3_k", "q3_k_s", "q3_k_m", "q3_k_l", "q2_k", "q2_k_s", "iq3_s", "iq3_m", "iq3_xs", "iq3_xxs", "iq2_s", "iq2_m", "iq2_xs"),
    }.items()
    for name in [spelling for name in names for spelling in (name, name.upper())]
)


class QuantizedFormat(Nested):
    """One format to write."""

    format: Format = option(
        ...,
        "What writes it: gguf (one file for llama.cpp), torchao, compressed-tensors, bitsandbytes; or auto-round, gptq and awq, the "
        "layouts of files that AutoRound writes.",
        extras=EXTRAS,
    )
    type: GgufType | BnbType | None = option(
        None, "gguf: the type of matrices. bitsandbytes: nf4, fp4 (4 bits) or int8 (LLM.int8).", gone=_K_QUANTS
    )
    weight_dtype: Dtype | None = option(None, "torchao: number format of weights.")
    activation_dtype: Dtype | None = option(None, "torchao: number format to which activations are rounded while the model runs.")
    group_size: int | None = option(
        None, "Weights that share a scale; 32 where the format has groups. It must divide the rows of every linear layer.", ge=8, le=LARGEST
    )
    quantize_embedding: bool | None = option(None, "torchao: hold the embeddings so too; a tied output head then becomes one of its own.")
    packed: bool | None = option(None, "torchao, int4: two weights in a byte. Needs a CUDA GPU and the package mslk.")
    scheme: Scheme | None = option(None, "compressed-tensors: bits of weights (W) and activations (A), as vLLM calls them.")
    bits: Literal[2, 3, 4, 8] | None = option(None, "auto-round, gptq, awq: bits of a weight; 4 if not given.")
    iterations: int | None = option(
        None, "auto-round, gptq, awq: steps that learn the rounding of a layer; 200 if not given, 0 rounds to nearest.", ge=0
    )
    calibration_rows: int | None = option(
        None, "auto-round, gptq, awq: stretches of training tokens to look at; 128 if not given.", ge=1, le=LARGEST
    )
    calibration_length: int | None = option(None, "auto-round, gptq, awq: tokens of each; 512 if not given.", ge=2, le=LARGEST)
    calibration_seed: int | None = option(None, "auto-round, gptq, awq: which training rows these are; 42 if not given.", ge=0, le=LARGEST)


class Quantize(Group):
    """Read by quantize."""

    quantize: list[ShortName | QuantizedFormat] = option(
        ["int8", "q8_0"],
        "Formats to write, each a folder of data/quantized: int8 (torchao), a type of GGUF, or a mapping that says more.",
        gone=_K_QUANTS,
        validate_default=True,
    )

    @field_validator("quantize")
    @classmethod
    def _spell_out(cls, entries: list[ShortName | QuantizedFormat]) -> list[QuantizedFormat]:
        return [QuantizedFormat.model_validate(spelled_out(entry)) if isinstance(entry, str) else entry for entry in entries]


class AfterTraining(Nested):
    """Axolotl's quantisation after training; only some pairs of dtypes exist."""

    weight_dtype: Dtype = option("int8", "Number format of weights.", extras=_TORCHAO)
    activation_dtype: Dtype | None = option(None, "Number format of activations; default unquantised.")
    quantize_embedding: bool | None = option(None, "Quantise the embeddings too.")
    group_size: int | None = option(None, "Weights that share a scale; 32 where the pair has groups.", ge=8, le=LARGEST)


class WhileTraining(Nested):
    """Quantisation-aware training: rounding is simulated so that the weights learn to bear it."""

    activation_dtype: Dtype | None = option(None, "Simulated number format of activations.")
    weight_dtype: Dtype = option("int8", "Simulated number format of weights.", extras=_TORCHAO)
    quantize_embedding: bool | None = option(False, "Simulate it in the embeddings too.")
    group_size: int | None = option(None, "Weights that share a scale; 32 where the pair has groups.", ge=8, le=LARGEST)
    fake_quant_after_n_steps: int | None = option(None, "Steps of plain training before it begins.", ge=0, le=LARGEST)


class PostTrainingQuantization(Group):
    """Read by quantize."""

    quantization: AfterTraining | None = option(None, "One more format of `quantize`, by torchao, as Axolotl has it.")


class QuantizationAwareTraining(Group):
    """Read by train, and by quantize, which writes what was trained for."""

    qat: WhileTraining | None = option(
        None, "Train with simulated quantisation; quantize writes the model so, besides what `quantize` lists."
    )

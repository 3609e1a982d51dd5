"""Which quantised formats there are: what each takes, what its folder is called, what works instead of what does not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pipeline.torchao_pairs import GROUP_SIZE, find_pair, short

Format = Literal["gguf", "torchao", "compressed-tensors", "bitsandbytes", "auto-round", "gptq", "awq"]
GgufType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"]
BnbType = Literal["nf4", "fp4", "int8"]
Scheme = Literal["W8A8", "W8A16", "W4A16", "W4A8", "FP8_DYNAMIC"]
ShortName = Literal["int8", "f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"]

GGUF_TYPES: tuple[str, ...] = GgufType.__args__  # type: ignore[attr-defined]
BNB_TYPES: tuple[str, ...] = BnbType.__args__  # type: ignore[attr-defined]
GROUPED_SCHEMES = ("W8A16", "W4A16", "W4A8")
"""Of compressed-tensors: those with a scale for each group of weights. The others have one for each row."""

EXTRAS = (
    ("gguf", "gguf", "gguf"),
    ("torchao", "torchao", "int8"),
    ("compressed-tensors", "compressed_tensors", "compressed-tensors"),
    ("bitsandbytes", "bitsandbytes", "bitsandbytes"),
    *((name, "auto_round", "auto-round") for name in ("auto-round", "gptq", "awq")),
)
"""Format, the package that writes it, and the extra of regrow that brings the package."""

VERSIONS = {
    "compressed_tensors": ("compressed-tensors", "0.20.0"),
    "bitsandbytes": ("bitsandbytes", "0.50.2"),
    "auto_round": ("auto-round", "0.16.1"),
}
"""Packages that are not in the lock, as not everybody has them: distribution, and the version that decides what is written."""

ROUNDED_BY_AUTO_ROUND = ("auto-round", "gptq", "awq")
"""One algorithm, AutoRound (arXiv 2309.05516), in three file layouts; it looks at calibration rows."""

KEYS: dict[str, tuple[str, ...]] = {
    "gguf": ("type",),
    "torchao": ("weight_dtype", "activation_dtype", "group_size", "quantize_embedding", "packed"),
    "compressed-tensors": ("scheme", "group_size"),
    "bitsandbytes": ("type",),
    **dict.fromkeys(
        ROUNDED_BY_AUTO_ROUND, ("bits", "group_size", "iterations", "calibration_rows", "calibration_length", "calibration_seed")
    ),
}
"""What an entry of each format may say besides its format."""

NEEDED = {"gguf": "type", "torchao": "weight_dtype", "compressed-tensors": "scheme", "bitsandbytes": "type"}
"""What it must say."""


def spelled_out(name: str) -> dict[str, Any]:
    """The entry that a short name stands for."""
    return {"format": "torchao", "weight_dtype": "int8"} if name == "int8" else {"format": "gguf", "type": name}


def group_size(entry: Any) -> int | None:
    """Weights that share a scale in what an entry of ``quantize`` asks for; ``None``: all of a row, or as the format has it."""
    if entry.format == "torchao":
        pair = find_pair(entry.weight_dtype, entry.activation_dtype)
        grouped = pair is not None and pair.grouped is True
    else:
        grouped = entry.format in ROUNDED_BY_AUTO_ROUND or entry.scheme in GROUPED_SCHEMES
    return entry.group_size or (GROUP_SIZE if grouped else None)


def folder_name(entry: Any) -> str:
    """Where an entry of ``quantize`` goes below data/quantized; entries that ask for the same have one name."""
    return "-".join(_parts(entry))


def _parts(entry: Any) -> Iterator[str]:
    group = group_size(entry)
    if entry.format == "gguf":
        yield str(entry.type)
    elif entry.format == "torchao":
        yield str(short(entry.weight_dtype))
        yield from ["packed"] if entry.packed else []
    else:
        yield entry.format
        yield str(entry.type or entry.scheme or f"{entry.bits or 4}bit").lower()
    yield from [f"g{group}"] if group else []
    if entry.format == "torchao":
        yield from [f"a{short(entry.activation_dtype)}"] if entry.activation_dtype else []
        yield from ["embeddings"] if entry.quantize_embedding else []

"""How weights are rounded: the numbers that torchao is asked for, in its own words, and the groups that share a scale.

What training simulates is what quantize writes, so both read it here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import gcd
from typing import Any

from pipeline.errors import RegrowError
from pipeline.torchao_pairs import GROUP_SIZE, short

_LIKELY = (256, 128, 64, 32, 16, 8)


def check_groups(rows: Mapping[str, int], size: int | None, name: str, *, fixed: bool = False) -> None:
    """Nothing, where groups of ``size`` weights fill every row.

    Args:
        rows: by the name of each layer, the weights in one row of it.
        name: what asks for the groups, for the message.
        fixed: the size belongs to the format, so that no other one can be given.

    Raises:
        RegrowError: they do not; it names a layer, and sizes that would.
    """
    wrong = next((layer for layer, row in rows.items() if size is not None and row % size), None)
    if wrong is None:
        return
    divisor = gcd(*rows.values())
    works = [number for number in _LIKELY if divisor % number == 0] or [divisor]
    others = f"For all {len(rows)} layers of this model, group_size can be {', '.join(map(str, works))}."
    raise RegrowError(
        f"{name}: groups of {size} weights do not fill the rows of {wrong}.weight, which have {rows[wrong]}.",
        "The size belongs to these formats; write another pair, such as weight_dtype fp8." if fixed else others,
    )


def config_of(block: Any) -> Any:
    """torchao's configuration for linear layers.

    Args:
        block: what names ``weight_dtype``, ``activation_dtype`` and ``group_size``, a pair that torchao has.
    """
    size = block.group_size or GROUP_SIZE
    if getattr(block, "packed", None):
        from torchao.quantization import Int4WeightOnlyConfig

        return Int4WeightOnlyConfig(group_size=size)
    weight, activation = short(block.weight_dtype), short(block.activation_dtype)
    if weight in ("nvfp4", "mxfp4"):
        return _four_bit_float(weight, activation)
    return _CONFIGS[weight, activation](size, block.group_size)


def embedding_config(block: Any) -> Any:
    """The same for embeddings: of their products there are none, so activations stay as they are."""
    weight = short(block.weight_dtype)
    return _CONFIGS[weight, None](block.group_size or GROUP_SIZE, block.group_size if block.activation_dtype is None else None)


def _int8(size: int, asked: int | None) -> Any:
    from torchao.quantization import Int8WeightOnlyConfig, PerGroup

    return Int8WeightOnlyConfig(version=2) if asked is None else Int8WeightOnlyConfig(granularity=PerGroup(asked), version=2)


def _int8_both(size: int, asked: int | None) -> Any:
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig

    return Int8DynamicActivationInt8WeightConfig(version=2)


def _int4(size: int, asked: int | None) -> Any:
    import torch
    from torchao.quantization import IntxWeightOnlyConfig, PerGroup

    return IntxWeightOnlyConfig(torch.int4, PerGroup(size))  # type: ignore[attr-defined]


def _int4_int8(size: int, asked: int | None) -> Any:
    import torch
    from torchao.quantization import Int8DynamicActivationIntxWeightConfig, PerGroup

    return Int8DynamicActivationIntxWeightConfig(torch.int4, PerGroup(size))  # type: ignore[attr-defined]


def _int4_fp8(size: int, asked: int | None) -> Any:
    from torchao.quantization import Float8DynamicActivationInt4WeightConfig

    return Float8DynamicActivationInt4WeightConfig()


def _fp8(size: int, asked: int | None) -> Any:
    from torchao.quantization import Float8WeightOnlyConfig

    return Float8WeightOnlyConfig()


def _fp8_both(size: int, asked: int | None) -> Any:
    from torchao.quantization import Float8DynamicActivationFloat8WeightConfig, PerRow

    # A token whose activations are all zero would be scaled by zero, and become no number.
    return Float8DynamicActivationFloat8WeightConfig(granularity=PerRow(), activation_value_lb=1e-12)


def _four_bit_float(weight: str, activation: str | None) -> Any:
    import torch
    from torchao.prototype import mx_formats

    if weight == "mxfp4":
        number = torch.float4_e2m1fn_x2
        return mx_formats.MXDynamicActivationMXWeightConfig(activation_dtype=number, weight_dtype=number)
    if activation is None:
        return mx_formats.NVFP4WeightOnlyConfig()
    return mx_formats.NVFP4DynamicActivationNVFP4WeightConfig()


_CONFIGS: dict[tuple[str | None, str | None], Callable[[int, int | None], Any]] = {
    ("int8", None): _int8,
    ("int8", "int8"): _int8_both,
    ("int4", None): _int4,
    ("int4", "int8"): _int4_int8,
    ("int4", "fp8"): _int4_fp8,
    ("fp8", None): _fp8,
    ("fp8", "fp8"): _fp8_both,
}
"""Weights and activations → the configuration, from the size of groups with its default, and as it was asked for."""

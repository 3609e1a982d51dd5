"""Which pairs of number formats torchao computes with, after training and while training simulates it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Dtype = Literal["int4", "int8", "float8_e4m3fn", "fp8", "nvfp4", "mxfp4"]

GROUP_SIZE = 32
"""Weights that share a scale, where nothing else is said. It divides the rows of nearly every model, which 128 does not."""


@dataclass(frozen=True)
class Pair:
    """Numbers that torchao computes with.

    Attributes:
        weight: format of weights.
        activation: format to which activations are rounded while the model runs; ``None`` leaves them alone.
        grouped: several weights of a row share a scale. ``None``: a row does, or a group where a size is given.
        embedding: embeddings may be held so too.
        trained: quantisation-aware training can simulate it.
        block: how many, where the format says so itself.
        gpu: the compute capability without which it cannot even be written; ``None``: a CPU does.
    """

    weight: str
    activation: str | None
    grouped: bool | None = False
    embedding: bool = False
    trained: bool = False
    block: int | None = None
    gpu: tuple[int, int] | None = None


# Of fp8, torchao 0.18 rounds the gradients too, to the format itself, in which anything below 0.001 is zero.
# So it is not offered while training.
PAIRS = (
    Pair("int8", None, grouped=None, embedding=True),
    Pair("int8", "int8", embedding=True),
    Pair("int4", None, grouped=True, embedding=True, trained=True),
    Pair("int4", "int8", grouped=True, embedding=True, trained=True),
    Pair("int4", "fp8", block=128, gpu=(9, 0)),
    Pair("fp8", None),
    Pair("fp8", "fp8", gpu=(8, 9)),
    Pair("nvfp4", None, block=16),
    Pair("nvfp4", "nvfp4", block=16, gpu=(10, 0)),
    Pair("mxfp4", "mxfp4", block=32, gpu=(10, 0)),
)


def find_pair(weight: str | None, activation: str | None) -> Pair | None:
    """The pair of two formats under any of their names; ``None`` where torchao has none."""
    wanted = (short(weight), short(activation))
    return next((pair for pair in PAIRS if (pair.weight, pair.activation) == wanted), None)


def short(dtype: str | None) -> str | None:
    """``fp8`` for both of its names."""
    return "fp8" if dtype == "float8_e4m3fn" else dtype


def table(*, trained: bool = False) -> str:
    """The pairs in lines, for a message. ``trained``: those that quantisation-aware training can simulate."""
    rows: list[tuple[str, ...]] = [("weight_dtype", "activation_dtype", "group_size", "quantize_embedding", "needs")]
    rows += [_row(pair) for pair in PAIRS if pair.trained or not trained]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("    " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def _row(pair: Pair) -> tuple[str, ...]:
    group = {True: f"yes, {GROUP_SIZE} if not given", None: "if given", False: "no"}[pair.grouped]
    needs = "-" if pair.gpu is None else f"a CUDA GPU of compute capability {pair.gpu[0]}.{pair.gpu[1]}"
    return pair.weight, pair.activation or "-", group, "yes" if pair.embedding else "no", needs

"""Proof, before a packed run starts, that rows of one bin do not see each other in this model.

Block-diagonal attention comes from restarting position ids, and that is up to each architecture in transformers: one
that ignores them would train on leaked context without a sign. Three short forward passes tell.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from pipeline.bins import Bins, Skips
from pipeline.errors import RegrowError
from pipeline.tokens import TokenTable
from stages.train.data.bins import BinDataset, Collator, Example

_SPAN = 16
# Rounding moves logits by about 1e-6 of their size in fp32 and 1e-2 in bf16, a leak by about 1e-1.
_TOLERANCES = {torch.float32: 1e-3, torch.float16: 1e-2}
_EXACT = 1e-5
"""In fp32, of another neighbour in the same layout: it moves no bit but where experts are shared. Random weights can leak 1e-4."""


def check_isolation(model: Any, bins: Bins, tokens: TokenTable, *, joined: bool = False) -> None:
    """Compare the logits of a row behind another one in a bin, or in a batch of ``joined`` bins, with those of the row alone.

    Raises:
        RegrowError: they differ or are no numbers, or rows with skips are longer than a window of the model's attention.
    """
    if bins.skips is not None:
        _check_mask(model, int(bins.length.max(initial=0)))
    shared = np.flatnonzero(np.diff(bins.offsets) > 1)
    if len(shared) == 0 and not (joined and len(bins) > 1):
        return
    first = int(bins.offsets[shared[0]]) if len(shared) else 0
    pair, alone = (BinDataset(_shortened(bins, np.array(spans)), tokens, 0)[0] for spans in ([first, first + 1], [first + 1]))
    expected, behind, other = (_logits(model, example) for example in (alone, pair, _with_another_neighbour(pair, alone)))
    behind, other = behind[-len(expected) :], other[-len(expected) :]
    if torch.isnan(expected).any():
        raise RegrowError(
            f"{type(model).__name__} gives logits that are no numbers, before the first step.",
            "Its weights are damaged, or too large for the numbers it is computed in: try bf16: false.",
        )
    numbers, size = _numbers(model, expected.device.type), expected.abs().max()
    usual = _TOLERANCES.get(numbers, 5e-2)
    moved, changed = (behind - expected).abs().max(), (behind - other).abs().max()
    if not (
        moved <= usual * size and changed <= (_EXACT if numbers is torch.float32 and not _rounds(expected.device.type) else usual) * size
    ):
        raise RegrowError(
            f"Rows that share a bin see each other in {type(model).__name__}: "
            f"the logits of a row change by {torch.maximum(moved, changed):.2g} behind another row.",
            "Set sample_packing: false; this architecture does not separate packed rows by their position ids."
            if len(shared)
            else "Remove batch_flattening; this architecture does not separate joined rows by their position ids.",
        )


def _with_another_neighbour(pair: Example, alone: Example) -> Example:
    """``pair`` with other tokens in the first row, which are in the vocabulary too."""
    first = len(pair["input_ids"]) - len(alone["input_ids"])
    ids, other = pair["input_ids"].copy(), pair.copy()
    ids[:first] = np.where(ids[:first] > 0, ids[:first] - 1, 1)
    other["input_ids"] = ids
    return other


def _rounds(kind: str) -> bool:
    """Whether products of fp32 are in TensorFloat-32."""
    return bool(kind == "cuda" and torch.backends.cuda.matmul.allow_tf32)


def _numbers(model: Any, kind: str) -> torch.dtype:
    """What products are computed in, on a device of this kind: weights may wait elsewhere."""
    if getattr(model, "is_quantized", False):
        return torch.int8
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else model.dtype


def _check_mask(model: Any, longest: int) -> None:
    """A mask that is given takes the place of the model's own, and with it of its window; what else reads masks cannot read it."""
    config = model.config.get_text_config()
    # Some configs say 0 where there is none.
    reach = min((size for name in ("sliding_window", "attention_chunk_size") if (size := getattr(config, name, None))), default=longest)
    if longest > reach:
        raise RegrowError(
            f"use_pose: rows of {longest} tokens are longer than the attention window of {type(model).__name__}, {reach} tokens.",
            f"Set sequence_len: {reach}, or remove use_pose.",
        )
    if getattr(config, "output_router_logits", False):
        raise RegrowError(
            f"use_pose: {type(model).__name__} cannot measure how evenly its experts are used where a mask is given "
            "(its config has output_router_logits: true).",
            "Add overrides_of_model_config: {output_router_logits: false}, or remove use_pose.",
        )


def _shortened(bins: Bins, spans: np.ndarray) -> Bins:
    """One bin of the beginnings of ``spans``. Skips lie where the beginning is cut in two, whatever they were."""
    length = np.minimum(bins.length[spans], _SPAN)
    offsets = np.arange(len(spans) + 1)
    skips = None if bins.skips is None else Skips(offsets, np.maximum(length // 2, 1), np.full(len(spans), 7, np.int32))
    return Bins(np.array([0, len(spans)]), bins.row[spans], bins.start[spans], length, skips)


@torch.no_grad()
def _logits(model: Any, example: Example) -> torch.Tensor:
    batch = Collator(0, select_logits=False)([example])
    del batch["labels"]
    with torch.compiler.set_stance("force_eager"):  # nothing is compiled for a few tokens
        logits: torch.Tensor = model.eval()(**{name: tensor.to(model.device) for name, tensor in batch.items()}).logits
    return logits[0].float()

"""Which attention kernel a model is trained with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch

from pipeline.errors import MissingExtra, RegrowError
from pipeline.options.views import TrainOptions
from stages.train.attention import varlen
from stages.train.model.compilation import compiles, compiles_layers

_FLASH_PACKAGES = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface"}
# Of logits, against which a leak moves them by 1e-1: what another order of additions makes of them.
_TOLERANCES = {torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 1e-2}
_NARROW = 3
_INSTEAD = "Leave attn_implementation out: rows that share a bin are then computed one by one, without a package or a GPU."


def loaded_with(options: TrainOptions) -> str | None:
    """The kernel that transformers opens the model with; None lets it choose between sdpa and eager.

    Raises:
        RegrowError: a kernel that this machine has not.
    """
    name = options.attn_implementation
    if name == varlen.NAME:
        return None
    if name in (*_FLASH_PACKAGES, "flex_attention") and not torch.cuda.is_available():
        raise RegrowError(f"attn_implementation: {name} needs a CUDA device, and this machine has none.", _INSTEAD)
    if name == "flash_attention_2" and find_spec(_FLASH_PACKAGES[name]) is None:
        raise MissingExtra(f"attn_implementation: {name}", "flash-attn", "flash-attn")
    if name == "flash_attention_3" and find_spec(_FLASH_PACKAGES[name]) is None:
        raise RegrowError(
            f"attn_implementation: {name} needs the module flash_attn_interface, which is not installed.",
            "Build it from the folder hopper of https://github.com/Dao-AILab/flash-attention, or leave attn_implementation out.",
        )
    return name


def choose_attention(model: Any, options: TrainOptions) -> None:
    """Take attention by documents, where it is asked for or nothing is, and where it does as sdpa does.

    Models that are compiled whole keep sdpa: how many documents a batch has is not known when they are.

    Raises:
        RegrowError: it was asked for, and this architecture does not compute the same with it.
    """
    asked = options.attn_implementation == varlen.NAME
    whole = compiles(options) and not compiles_layers(model, options)
    if not asked and (options.attn_implementation is not None or whole):
        return
    kernel = model.config._attn_implementation
    if kernel == "sdpa" and model._supports_flash_attn and _agrees(model):
        return
    model.set_attn_implementation(kernel)
    if asked:
        raise RegrowError(
            f"attn_implementation: {varlen.NAME} does not compute the same as {kernel} in {type(model).__name__}.",
            f"Leave attn_implementation out; {kernel} is taken then.",
        )


def _agrees(model: Any) -> bool:
    """Whether two documents in one row have the logits that sdpa gives them. Leaves the model with attention by documents."""
    varlen.register()
    with _narrow_windows(model):
        expected = _logits(model)
        model.set_attn_implementation(varlen.NAME)
        found = _logits(model)
    numbers = torch.int8 if getattr(model, "is_quantized", False) else model.dtype  # products of few bits round, whatever is around them
    return bool((found - expected).abs().max() <= _TOLERANCES.get(numbers, 5e-2) * expected.abs().max())


@contextmanager
def _narrow_windows(model: Any) -> Iterator[None]:
    """Windows that two short documents reach beyond.

    Some architectures put their window into the mask and do not tell the attention function (Qwen2-MoE and Phi-MoE in
    transformers 5.23): where there is no mask they would lose it, and documents within the window do not show that.
    """
    holders = [part for part in (model.config.get_text_config(), *model.modules()) if getattr(part, "sliding_window", None)]
    before = [holder.sliding_window for holder in holders]
    try:
        for holder in holders:
            holder.sliding_window = _NARROW
        yield
    finally:
        for holder, window in zip(holders, before, strict=True):
            holder.sliding_window = window


@torch.no_grad()
def _logits(model: Any) -> torch.Tensor:
    ids = torch.arange(13, device=model.device)[None] % model.get_input_embeddings().num_embeddings
    positions = torch.cat([torch.arange(8), torch.arange(5)]).to(model.device)[None]
    logits: torch.Tensor = model(input_ids=ids, position_ids=positions, use_cache=False).logits
    return logits.float()

"""Tokens that a base model never saw: their rows of the embedding are zeros or noise, which training on them would start from."""

from __future__ import annotations

from typing import Any

import torch

from pipeline.errors import RegrowError
from pipeline.options.views import TrainOptions


def fix_untrained(model: Any, options: TrainOptions) -> None:
    """Give the tokens of `fix_untrained_tokens` the mean of all other rows, in the embedding and in the output head.

    Raises:
        RegrowError: an id without a row, or an adapter, with which embeddings are not saved.
    """
    asked = options.fix_untrained_tokens
    if asked is None or asked is False or asked == []:
        return
    if options.adapter is not None:
        raise RegrowError(
            f"fix_untrained_tokens: {asked} changes the embedding, which is not saved with an adapter.",
            "Train without an adapter, or leave it out.",
        )
    inputs, head = model.get_input_embeddings().weight, model.get_output_embeddings()
    chosen = _rows(inputs, asked)
    for weight in [inputs] if head is None or head.weight is inputs else [inputs, head.weight]:
        _set_to_mean(weight, chosen)


@torch.no_grad()
def _rows(embedding: torch.Tensor, asked: bool | int | list[int]) -> torch.Tensor:
    """A mask ``[rows]``."""
    if asked is True:
        return (embedding == 0).all(dim=1)
    ids = [asked] if isinstance(asked, int) else asked
    if wrong := [number for number in ids if not 0 <= number < len(embedding)]:
        raise RegrowError(f"fix_untrained_tokens: {wrong[0]} is no token id.", f"The embedding has rows 0 to {len(embedding) - 1}.")
    mask = torch.zeros(len(embedding), dtype=torch.bool, device=embedding.device)
    mask[ids] = True
    return mask


@torch.no_grad()
def _set_to_mean(weight: torch.Tensor, chosen: torch.Tensor) -> None:
    if chosen.any() and not chosen.all():
        weight[chosen] = weight[~chosen].double().mean(dim=0).to(weight.dtype)

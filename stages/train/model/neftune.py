"""NEFTune (arXiv 2310.05914): noise on the input embeddings while training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def add_noise(model: Any, alpha: float) -> None:
    """From now on, in training mode, input embeddings get uniform noise of magnitude alpha / sqrt(length * dimension).

    The length is that of a token's own document, so that noise does not depend on how documents share a bin. The noise
    comes from torch's generator, whose state every checkpoint holds.
    """
    noise = _Noise(alpha)
    # The first module that is called: inside an adapter, calls go around the hooks of the model.
    model.register_forward_pre_hook(noise.remember, with_kwargs=True)
    model.get_input_embeddings().register_forward_hook(noise.add)


class _Noise:
    def __init__(self, alpha: float) -> None:
        self._alpha = alpha
        self._position_ids: Tensor | None = None

    def remember(self, module: Any, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        self._position_ids = keywords.get("position_ids")

    def add(self, module: Any, inputs: tuple[Any, ...], embeddings: Tensor) -> Tensor:
        if not module.training:
            return embeddings
        positions = self._position_ids
        if positions is None:
            positions = torch.arange(embeddings.shape[1], device=embeddings.device).expand(embeddings.shape[:2])
        magnitude = self._alpha / (document_lengths(positions) * embeddings.shape[2]).sqrt()
        return embeddings + torch.empty_like(embeddings).uniform_(-1, 1) * magnitude[..., None].to(embeddings.dtype)


def document_lengths(position_ids: Tensor) -> Tensor:
    """Length of the document that each token belongs to, float32 ``[batch, tokens]``; positions begin anew at each document."""
    document = position_ids.eq(0).cumsum(1)
    lengths = torch.zeros(len(document), int(document.max()) + 1, device=document.device)
    lengths.scatter_add_(1, document, torch.ones_like(document, dtype=lengths.dtype))
    return lengths.gather(1, document)

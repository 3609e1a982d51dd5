"""Who sees whom, said outright: for rows whose positions skip, which transformers would take for the borders of documents."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

HIDDEN = torch.finfo(torch.bfloat16).min
"""What is added to the score of a pair that does not see each other: finite in fp32 and bf16, so that no softmax is 0 / 0."""


def attention_mask(seq_lengths: Sequence[np.ndarray], length: int) -> torch.Tensor:
    """Causal attention inside every span, and none across their borders.

    Args:
        seq_lengths: for each row of a batch the tokens of each of its spans, int ``[spans]``.
        length: of the batch; what spans leave of it is padding, and every pad sees itself alone.

    Returns:
        fp32 ``[rows, 1, length, length]``, which is added to the scores. It is not boolean, because plain matrix products would add
        that as 0 and 1; and not ``[rows, length]``, because one that hides nothing is dropped on the way.
    """
    documents = torch.from_numpy(np.stack([_documents(spans, length) for spans in seq_lengths]))
    seen = (documents[:, :, None] == documents[:, None, :]).tril_()
    return torch.zeros(seen.shape).masked_fill_(~seen, HIDDEN)[:, None]


def _documents(spans: np.ndarray, length: int) -> np.ndarray:
    """Number of the document of each token, int64 ``[length]``; each pad is one."""
    pads = np.ones(length - int(spans.sum()), np.int64)
    return np.repeat(np.arange(len(spans) + len(pads)), np.concatenate([spans, pads]))

"""Proof, before a packed run starts, that rows of one bin do not see each other in this model.

Block-diagonal attention comes from restarting position ids, and that is up to each architecture in transformers: one
that ignores them would train on leaked context without a sign. Two short forward passes tell.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from pipeline.bins import Bins
from pipeline.errors import RegrowError
from pipeline.tokens import TokenTable
from stages.train.data import BinDataset, Collator, Example

_SPAN = 16
# fp32 rounding moves logits by about 1e-6 of their size, a leak by about 1e-1.
_TOLERANCE = 1e-3


def check_isolation(model: Any, bins: Bins, tokens: TokenTable) -> None:
    """Compare the logits of a row behind another one in a bin with those of the row alone.

    Raises:
        RegrowError: they differ.
    """
    shared = np.flatnonzero(np.diff(bins.offsets) > 1)
    if len(shared) == 0:
        return
    first = int(bins.offsets[shared[0]])
    length = np.minimum(bins.length[first : first + 2], _SPAN)
    pair = Bins(np.array([0, 2]), bins.row[first : first + 2], bins.start[first : first + 2], length)
    both = BinDataset(pair, tokens, 0)[0]
    alone: Example = {name: array[length[0] :] for name, array in both.items()}  # type: ignore[assignment,index]
    expected = _logits(model, alone)
    difference = (_logits(model, both)[length[0] :] - expected).abs().max()
    if not difference <= _TOLERANCE * expected.abs().max():
        raise RegrowError(
            f"Rows that share a bin see each other in {type(model).__name__}: "
            f"the logits of a row change by {difference:.2g} behind another row.",
            "Set sample_packing: false; this architecture does not separate packed rows by their position ids.",
        )


@torch.no_grad()
def _logits(model: Any, example: Example) -> torch.Tensor:
    batch = Collator(0, select_logits=False)([example])
    del batch["labels"]
    logits: torch.Tensor = model.eval()(**{name: tensor.to(model.device) for name, tensor in batch.items()}).logits
    return logits[0].float()

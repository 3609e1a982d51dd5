"""What a model is asked: some rows, for the logits of what follows each token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stages.merge.rows import Rows


@dataclass(frozen=True)
class Question:
    """Rows, as a model is given them."""

    rows: Rows

    @property
    def ids(self) -> Tensor:
        """int64 ``[rows, tokens]``, short rows padded on the right."""
        longest = max(map(len, self.rows.ids))
        return torch.tensor([ids + [0] * (longest - len(ids)) for ids in self.rows.ids])

    @torch.no_grad()
    def ask(self, model: Any) -> list[Tensor]:
        """Logits ``[tokens, vocabulary]`` of each row; ``[1, labels]`` of a model that judges whole texts."""
        lengths = [len(ids) for ids in self.rows.ids]
        mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
        if model.config.pad_token_id is None:
            model.config.pad_token_id = 0  # where a model that judges looks for the end of a text
        logits = model(input_ids=self.ids, attention_mask=mask.long(), use_cache=False).logits.float()
        return [row[:length] if logits.dim() == 3 else row[None] for row, length in zip(logits, lengths, strict=True)]

"""The rows that the merged model and the unmerged one are both asked about."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.bins import Bins
from pipeline.digest import digest_json
from pipeline.tokens import TokenTable

LENGTH = 64
"""Tokens of a row that are looked at: its first."""


@dataclass(frozen=True)
class Rows:
    """What is asked.

    Attributes:
        ids: token ids of each row, at least one row and one token.
        numbers: of the rows in data/tokens.
        split: ``eval`` for held-out rows, or ``train``.
    """

    ids: list[list[int]]
    numbers: list[int]
    split: str

    def facts(self) -> dict[str, Any]:
        """What is kept of it: how many, which, and a digest of their tokens."""
        tokens = sum(map(len, self.ids))
        return {"rows": len(self.ids), "tokens": tokens, "split": self.split, "row_numbers": self.numbers, "sha256": digest_json(self.ids)}


def first_rows(tokens: Path, packed: Path, count: int) -> Rows | None:
    """The first ``count`` rows that are held out, or trained where none is; None where no row holds a token, or none is asked for."""
    table = TokenTable(tokens)
    for split in ("eval", "train"):
        numbers = _distinct(Bins.load(packed / f"{split}.arrow").row, table, count) if (packed / f"{split}.arrow").exists() else []
        if numbers:
            return Rows([table.ids(number)[:LENGTH].tolist() for number in numbers], numbers, split)
    return None


def _distinct(rows: np.ndarray, table: TokenTable, count: int) -> list[int]:
    seen = dict.fromkeys(row for row in rows[table.lengths[rows] > 0].tolist())
    return list(seen)[:count]

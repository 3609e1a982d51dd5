"""The held-out rows: the spans of data/packed/eval.arrow, each judged on its own, and how they are batched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.bins import Bins
from pipeline.tokens import TokenTable


@dataclass(frozen=True)
class HeldOutRow:
    """One row to judge.

    Attributes:
        ids: int64 ``[tokens]``.
        mask: bool ``[tokens]``, True where a token is trained and can be predicted (never the first one).
        source: index into the tokens manifest's ``sources``.
        row: row number in that source's file.
    """

    ids: np.ndarray
    mask: np.ndarray
    source: int
    row: int

    @property
    def first(self) -> int:
        """Position of the first judged token: the answer begins here, the prompt ends before."""
        return int(self.mask.argmax())

    def runs(self) -> list[tuple[int, int]]:
        """Unbroken runs of judged tokens, each from where up to where: the answers that the text before each should get."""
        edges = np.flatnonzero(np.diff(np.concatenate([[False], self.mask, [False]]))).tolist()
        return list(zip(edges[::2], edges[1::2], strict=True))


def load_rows(tokens: TokenTable, bins: Bins) -> tuple[list[HeldOutRow], int]:
    """The rows in plan order, and how many were left out because no token of theirs can be judged."""
    rows = []
    for number in range(len(bins)):
        for row, start, length in bins.spans(number):
            mask = tokens.mask(row)[start : start + length].astype(bool)
            mask[:1] = False
            ids = tokens.ids(row)[start : start + length].astype(np.int64)
            rows.append(HeldOutRow(ids, mask, int(tokens.source[row]), int(tokens.row[row])))
    judged = [row for row in rows if row.mask.any()]
    return judged, len(rows) - len(judged)


def make_batches(lengths: Sequence[int], batch_size: int, max_tokens: int) -> Iterator[list[int]]:
    """Row numbers, shortest rows first, at most ``batch_size`` in a batch and ``max_tokens`` with padding (one row always fits)."""
    batch: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda number: (lengths[number], number)):
        if batch and (len(batch) == batch_size or (len(batch) + 1) * lengths[number] > max_tokens):
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch

"""Stretches of training tokens that a library looks at while it rounds, chosen by a seed and known by their rows."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.artifact import Artifact
from pipeline.bins import Bins
from pipeline.errors import RegrowError
from pipeline.tokens import TokenTable


@dataclass(frozen=True)
class Calibration:
    """What was looked at.

    Attributes:
        ids: int64 ``[stretches, tokens]``.
        rows: of data/tokens, whose tokens these are, in order; the last one may be cut off.
        seed: decides which rows.
    """

    ids: np.ndarray
    rows: list[int]
    seed: int

    def facts(self) -> dict[str, Any]:
        """What is kept of it: rows by number, and a digest of their tokens."""
        digest = hashlib.sha256(np.ascontiguousarray(self.ids, "<i8").data).hexdigest()
        stretches, length = self.ids.shape
        return {"stretches": stretches, "length": length, "seed": self.seed, "rows": self.rows, "sha256": digest}


def draw_calibration(tokens: Artifact, packed: Artifact, *, stretches: int, length: int, seed: int) -> Calibration:
    """Rows that are trained, drawn without repetition and joined, then cut in ``stretches`` of ``length`` tokens.

    Fewer stretches come of rows that do not fill them.

    Raises:
        RegrowError: the training rows do not fill a single one.
    """
    table = TokenTable(tokens.path)
    trained = np.unique(Bins.load(packed.path / "train.arrow").row)
    order = trained[np.random.Generator(np.random.PCG64(seed)).permutation(len(trained))]
    ends = np.cumsum(table.lengths[order])
    count = min(stretches, int(ends[-1]) // length if len(ends) else 0)
    if count == 0:
        raise RegrowError(
            f"The training rows have {int(ends[-1]) if len(ends) else 0} tokens, fewer than one stretch of calibration_length {length}.",
            "Lower calibration_length.",
        )
    rows = order[: int(np.searchsorted(ends, count * length)) + 1].tolist()
    joined = np.concatenate([np.asarray(table.ids(row), np.int64) for row in rows])
    return Calibration(joined[: count * length].reshape(count, length), rows, seed)

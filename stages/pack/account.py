"""What becomes of every row and token that pack is given, source by source."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.left_out import LeftOut


class Account:
    """Counts rows and tokens that do not take part, and tokens that were cut off.

    Attributes:
        dropped: int64 ``[sources, 2]`` by reason: rows left out and their tokens.
        truncated: int64 ``[sources, 2]``: rows cut and the tokens that they lost.
    """

    def __init__(self, source: np.ndarray, sources: int) -> None:
        """``source`` is that of each row of the token table; there are ``sources`` of them."""
        self._source, self._sources = source, sources
        self.dropped: dict[str, np.ndarray] = {}
        self.truncated = np.zeros((sources, 2), np.int64)
        self._left_out: list[tuple[str, np.ndarray]] = []

    def count(self, rows: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """int64 ``[sources, 2]``: how many ``rows`` are from each source, and the sum of their ``tokens``, int ``[rows]``."""
        source = self._source[rows]
        sums = np.bincount(source, tokens, self._sources)  # in float64, exact up to 2**53
        return np.stack([np.bincount(source, minlength=self._sources), sums.astype(np.int64)], axis=1)

    def drop(self, rows: np.ndarray, tokens: np.ndarray, reason: str) -> None:
        """Leave out ``rows`` (or parts of them) of so many ``tokens``."""
        if len(rows):
            self.dropped[reason] = self.dropped.get(reason, 0) + self.count(rows, tokens)
            self._left_out.append((reason, rows))

    def left_out(self) -> LeftOut:
        """The rows by reason."""
        return LeftOut.of(self._left_out)

    def truncate(self, rows: np.ndarray, tokens: np.ndarray, first: np.ndarray) -> None:
        """Cut so many ``tokens`` off each of ``rows``; those that ``first``, bool ``[rows]``, names were whole before."""
        self.truncated[:, 0] += np.bincount(self._source[rows[first]], minlength=self._sources)
        self.truncated[:, 1] += self.count(rows, tokens)[:, 1]

    def totals(self) -> dict[str, Any]:
        """Rows left out by reason, rows cut, and the tokens that were lost by either."""
        tokens = sum(int(counts[:, 1].sum()) for counts in self.dropped.values())
        return {
            "dropped": {reason: int(counts[:, 0].sum()) for reason, counts in self.dropped.items()},
            "dropped_tokens": tokens,
            "truncated": as_counts(self.truncated.sum(axis=0)),
        }

    def of_source(self, number: int) -> dict[str, Any]:
        """The same for one source, with rows and tokens of each reason."""
        dropped = {reason: as_counts(counts[number]) for reason, counts in self.dropped.items() if counts[number, 0]}
        return {"dropped": dropped, "truncated": as_counts(self.truncated[number])}


def as_counts(pair: np.ndarray) -> dict[str, int]:
    """``rows`` and ``tokens`` of an int array ``[2]``."""
    return {"rows": int(pair[0]), "tokens": int(pair[1])}

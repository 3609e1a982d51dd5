"""What each row is there for, and which row stays where two say the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.tokens import TokenTable

APART, EVALUATION, TRAINING = 0, 1, 2
_OF_SPLIT = {"against": APART, "test": EVALUATION, "train": TRAINING}


@dataclass(frozen=True)
class Roles:
    """Roles and the order of precedence of the rows of a token table.

    Attributes:
        role: int8 ``[rows]``: APART (of dedupe.against), EVALUATION (of test_datasets) or TRAINING.
        order: int64 ``[rows]``, rows by precedence: those held apart, those of evaluation, those of training; each in config
            order, which is that of the sources and of the rows in them. It does not depend on where a row stands in the table.
    """

    role: np.ndarray
    order: np.ndarray

    @classmethod
    def of(cls, tokens: TokenTable, sources: Sequence[Mapping[str, Any]]) -> Roles:
        """From the manifest's ``sources``."""
        role = np.asarray([_OF_SPLIT[source["split"]] for source in sources], np.int8)[tokens.source]
        by_role = [np.flatnonzero(role == one) for one in (APART, EVALUATION, TRAINING)]
        return cls(role, np.concatenate([rows[_in_order(tokens.source[rows], tokens.row[rows])] for rows in by_role]))

    def rows(self, role: int) -> np.ndarray:
        """int64: the rows of a role, by precedence."""
        return np.asarray(self.order[self.role[self.order] == role])


def _in_order(source: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Config order. tokenize writes rows in it, and looking is a hundred times faster than sorting."""
    ascending = (source[1:] > source[:-1]) | ((source[1:] == source[:-1]) & (row[1:] > row[:-1]))
    return np.arange(len(row)) if ascending.all() else np.asarray(np.lexsort((row, source)))

"""What is looked for, in which order: overlap with rows held apart, then equal rows, then rows that are nearly equal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.kept import APART as HELD_APART
from pipeline.kept import KeptRows
from pipeline.options.views import DedupeOptions
from pipeline.progress import Progress
from pipeline.tokens import TokenTable
from stages.dedupe.exact import remove_duplicates
from stages.dedupe.near import Found, remove_near
from stages.dedupe.overlap import Contamination, remove_overlapping
from stages.dedupe.roles import APART, EVALUATION, TRAINING, Roles


@dataclass(frozen=True)
class Removal:
    """The index, and what the searches that were asked for found."""

    index: KeptRows
    contamination: Contamination | None = None
    near: Found | None = None


def remove_rows(options: DedupeOptions, tokens: TokenTable, roles: Roles, progress: Progress) -> Removal:
    """Decide of every row whether it stays.

    Rows held apart never stay, and rows of evaluation go only where they repeat each other: what is judged is the user's choice,
    and what is trained gives way to it. Overlap comes first, so that the report tells it of the rows as they were given.
    """
    index, contamination, near = KeptRows.all_of(len(tokens)), None, None
    apart = roles.rows(APART)
    index.remove(apart, HELD_APART)
    if len(apart):
        contamination = remove_overlapping(index, tokens, roles, options.dedupe.overlap, progress)
    if options.dataset_exact_deduplication:
        candidates = np.concatenate([roles.rows(EVALUATION), roles.rows(TRAINING)])
        remove_duplicates(index, tokens.digest, candidates[index.keep[candidates]])
    if options.dedupe.near is not None:
        near = remove_near(index, tokens, roles, options.dedupe.near, progress)
    return Removal(index, contamination, near)

"""The work that a run is."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.steps import Steps


@dataclass(frozen=True)
class Work:
    """What a run goes through.

    Attributes:
        bins: of an epoch.
        tokens: of the whole run, counting every pass over one.
        trained_tokens: those among them that are labels.
        longest: tokens of the longest bin.
        most_trained: labels of the bin with the most.
        packed: whether bins hold several documents.
    """

    steps: Steps
    bins: int
    tokens: int
    trained_tokens: int
    longest: int
    most_trained: int
    packed: bool

"""The training split: opened, and proven to be what pack planned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.artifact import Artifact
from pipeline.bins import Bins
from pipeline.errors import RegrowError
from pipeline.tokens import TokenTable
from stages.train.counts import BinCounts, count_bins


@dataclass(frozen=True)
class Corpus:
    """Token rows, the bins over them, and how much they hold."""

    tokens: TokenTable
    bins: Bins
    counts: BinCounts


def open_corpus(inputs: Mapping[str, Artifact]) -> Corpus:
    """Open data/tokens and the training bins of data/packed.

    Raises:
        RegrowError: the tokens are not those that were packed, or there is nothing to train.
    """
    tokens = TokenTable(inputs["tokens"].path)
    bins = Bins.load(inputs["packed"].path / "train.arrow")
    expected = inputs["packed"].content["content_digest"]["train"]
    found = bins.content_digest(tokens)
    if found != expected:
        raise RegrowError(
            f"{inputs['packed'].path} does not fit {inputs['tokens'].path}: its bins have the digest {found}; pack planned {expected}.",
            "Run `dvc repro`: pack makes its index again for these tokens.",
        )
    counts = count_bins(bins, tokens)
    if not counts.trained.any():
        raise RegrowError(
            f"{inputs['packed'].path / 'train.arrow'} has {len(bins)} bins and no token to train.",
            "Check sequence_len, val_set_size and what the masks train (roles_to_train, train_on_inputs).",
        )
    return Corpus(tokens, bins, counts)

"""Both splits: opened, and proven to be what pack planned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.artifact import Artifact
from pipeline.bins import Bins
from pipeline.errors import RegrowError
from pipeline.tokens import TokenTable
from stages.train.data.counts import BinCounts, count_bins


@dataclass(frozen=True)
class Corpus:
    """Token rows, the bins over them, and how much they hold.

    ``held_out_trained``: tokens that an evaluation measures; of prompts that are to be answered, all.
    """

    tokens: TokenTable
    bins: Bins
    counts: BinCounts
    held_out: Bins
    held_out_trained: int


def open_corpus(inputs: Mapping[str, Artifact]) -> Corpus:
    """Open data/tokens and the bins of data/packed.

    Raises:
        RegrowError: the tokens are not those that were packed, or there is nothing to train.
    """
    tokens = TokenTable(inputs["tokens"].path)
    bins, held_out = (_open_bins(inputs, tokens, split) for split in ("train", "eval"))
    counts = count_bins(bins, tokens)
    if not (len(bins) if tokens.referenced else counts.trained.any()):
        raise RegrowError(
            f"{inputs['packed'].path / 'train.arrow'} has {len(bins)} bins and no token to train.",
            "Check sequence_len, val_set_size and what the masks train (roles_to_train, train_on_inputs).",
        )
    measured = held_out.length if tokens.referenced else count_bins(held_out, tokens).trained
    return Corpus(tokens, bins, counts, held_out, int(measured.sum()))


def _open_bins(inputs: Mapping[str, Artifact], tokens: TokenTable, split: str) -> Bins:
    bins = Bins.load(inputs["packed"].path / f"{split}.arrow")
    expected = inputs["packed"].content["content_digest"][split]
    found = bins.content_digest(tokens)
    if found != expected:
        raise RegrowError(
            f"{inputs['packed'].path} does not fit {inputs['tokens'].path}: its bins have the digest {found}; pack planned {expected}.",
            "Run `dvc repro`: pack makes its index again for these tokens.",
        )
    return bins

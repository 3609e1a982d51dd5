"""Which rows take part, on which side of the split, in which order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.errors import RegrowError
from pipeline.kept import KeptRows
from pipeline.options.views import PackOptions
from pipeline.tokens import TokenTable


@dataclass(frozen=True)
class Selection:
    """Rows of the token table, in order.

    Attributes:
        train: int64 ``[rows]``.
        evaluation: int64 ``[rows]``.
        lengths: int64 ``[all rows]``, tokens of each row that take part.
        dropped: rows left out, by reason.
        truncated: ``rows`` cut and ``tokens`` lost by it.
    """

    train: np.ndarray
    evaluation: np.ndarray
    lengths: np.ndarray
    dropped: dict[str, int]
    truncated: dict[str, int]


def select_rows(options: PackOptions, tokens: TokenTable, kept: KeptRows, sources: Sequence[Mapping[str, Any]]) -> Selection:
    """Length policy on kept rows, a seeded shuffle of the training rows, then the split takes the shuffled tail."""
    fits, lengths, dropped = _apply_length_policy(options, tokens, kept, sources)
    from_test = np.asarray([source["split"] == "test" for source in sources], bool)[tokens.source]
    train, evaluation = np.flatnonzero(fits & ~from_test), np.flatnonzero(fits & from_test)
    if options.shuffle_merged_datasets:
        train = np.random.Generator(np.random.PCG64(options.seed)).permutation(train)
    if not len(train):
        raise RegrowError(f"No training row is left: {_summary(dropped)}.", "Check sequence_len and min_sample_len.")
    held_out = _held_out(options, len(train))
    if held_out:
        train, evaluation = train[: len(train) - held_out], train[len(train) - held_out :]
    cut = (lengths < tokens.lengths) & fits
    truncated = {"rows": int(cut.sum()), "tokens": int((tokens.lengths - lengths)[cut].sum())}
    return Selection(train, evaluation, lengths, dropped, truncated)


def _apply_length_policy(
    options: PackOptions, tokens: TokenTable, kept: KeptRows, sources: Sequence[Mapping[str, Any]]
) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    lengths, limit = tokens.lengths, options.sequence_len
    short, long = kept.keep & (lengths < options.min_sample_len), kept.keep & (lengths > limit)
    fits, dropped = kept.keep & ~short, {f"shorter than min_sample_len {options.min_sample_len}": int(short.sum())}
    if options.excess_length_strategy == "raise" and long.any():
        row = int(np.flatnonzero(long)[0])
        source = sources[int(tokens.source[row])]
        raise RegrowError(
            f"{int(long.sum())} rows are longer than sequence_len {limit}; the first is row {tokens.row[row]} of {source['path']} "
            f"({source['file']}) with {lengths[row]} tokens.",
            f"Set sequence_len to {int(lengths[kept.keep].max())} or more, or excess_length_strategy to drop or truncate.",
        )
    if options.excess_length_strategy == "drop":
        fits &= ~long
        dropped[f"longer than sequence_len {limit}"] = int(long.sum())
    else:
        lengths = np.minimum(lengths, limit)
        masked = [row for row in np.flatnonzero(long & fits) if not tokens.mask(int(row))[:limit].any()]
        fits[masked] = False
        dropped["nothing trained within sequence_len"] = len(masked)
    return fits, lengths, {reason: count for reason, count in dropped.items() if count}


def _held_out(options: PackOptions, rows: int) -> int:
    """Rows that ``val_set_size`` takes: a share of them below 1, a number of them above."""
    size = options.val_set_size
    count = round(rows * size) if size < 1 else int(size)
    if size and not 0 < count < rows:
        raise RegrowError(
            f"val_set_size: {size:g} would hold out {count} of {rows} rows.",
            f"Give a share between 0 and 1, or a number of rows below {rows}.",
        )
    return count


def _summary(dropped: Mapping[str, int]) -> str:
    return "; ".join(f"{count} rows {reason}" for reason, count in dropped.items()) or "there were none"

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

_SLICED_TYPES = ("completion", "pretrain")
"""Dataset types whose rows are running text: what is longer than a sequence goes on in the next one."""


@dataclass(frozen=True)
class Spans:
    """Stretches of rows, in order: whole rows, rows cut short, or slices of long ones.

    Attributes:
        row: int64 ``[spans]``, rows of the token table.
        start: int64 ``[spans]``, first token.
        length: int64 ``[spans]``, tokens.
    """

    row: np.ndarray
    start: np.ndarray
    length: np.ndarray

    def __len__(self) -> int:
        return len(self.row)

    def take(self, order: np.ndarray) -> Spans:
        """Those that ``order`` (indices or a mask) names."""
        return Spans(self.row[order], self.start[order], self.length[order])


@dataclass(frozen=True)
class Selection:
    """What takes part, on which side, in order.

    Attributes:
        dropped: rows left out, by reason.
        truncated: ``rows`` cut and ``tokens`` lost by it.
    """

    train: Spans
    evaluation: Spans
    dropped: dict[str, int]
    truncated: dict[str, int]


def select_rows(options: PackOptions, tokens: TokenTable, kept: KeptRows, sources: Sequence[Mapping[str, Any]]) -> Selection:
    """Length policy on kept rows, a seeded shuffle of the training rows, then the split takes the tail.

    Rows are split before long ones are sliced, so that no text is on both sides.
    """
    from_test = np.asarray([source["split"] == "test" for source in sources], bool)[tokens.source]
    policy = _LengthPolicy(options, tokens, sources)
    train = policy.apply(np.flatnonzero(kept.keep & ~from_test), options.sequence_len, "sequence_len")
    random = np.random.Generator(np.random.PCG64(options.seed))
    train = _part(options, _ordered(options, train, tokens.source, random))
    if not len(train):
        raise RegrowError(f"No training row is left: {_summary(policy.dropped)}.", "Check sequence_len and min_sample_len.")
    held_out = _held_out(options, len(train))
    test = np.flatnonzero(kept.keep & from_test)
    evaluation, train = np.concatenate([train[len(train) - held_out :], test]), train[: len(train) - held_out]
    limit = options.eval_sequence_len or options.sequence_len
    evaluation = policy.apply(evaluation, limit, "eval_sequence_len" if options.eval_sequence_len else "sequence_len")
    sides = policy.slice(train, options.sequence_len), policy.slice(evaluation, limit)
    if _shuffles(options) and len(sides[0]) > len(train):
        sides = sides[0].take(random.permutation(len(sides[0]))), sides[1]  # or the slices of a text would follow each other
    return Selection(sides[0], sides[1], policy.dropped, policy.truncated)


def _shuffles(options: PackOptions) -> bool:
    return options.shuffle_merged_datasets and not options.curriculum_sampling


def _ordered(options: PackOptions, rows: np.ndarray, source: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Training rows in the order in which they are packed: of the datasets, or shuffled within each, or all together."""
    if _shuffles(options):
        return np.asarray(random.permutation(rows), np.int64)
    if not options.shuffle_before_merging_datasets:
        return rows
    parts = [random.permutation(rows[source[rows] == number]) for number in np.unique(source[rows])]
    return np.concatenate([rows[:0], *parts])


def _part(options: PackOptions, rows: np.ndarray) -> np.ndarray:
    """One of dataset_shard_num stretches that are equal to within a row."""
    if options.dataset_shard_num is None:
        return rows
    return np.array_split(rows, options.dataset_shard_num)[options.dataset_shard_idx or 0]


class _LengthPolicy:
    """What becomes of rows that are too short or too long; counts what it leaves out.

    Attributes:
        lengths: int64 ``[rows of the table]``, tokens that take part.
        dropped: rows left out, by reason.
        truncated: ``rows`` cut and ``tokens`` lost by it.
    """

    def __init__(self, options: PackOptions, tokens: TokenTable, sources: Sequence[Mapping[str, Any]]) -> None:
        self._options, self._tokens, self._sources = options, tokens, sources
        self._sliced = np.asarray([source.get("type") in _SLICED_TYPES for source in sources], bool)[tokens.source]
        self.lengths = tokens.longest.copy()
        self.dropped: dict[str, int] = {}
        self.truncated = {"rows": 0, "tokens": 0}

    def apply(self, rows: np.ndarray, limit: int, option: str) -> np.ndarray:
        """Those of ``rows`` that take part, in their order, where ``option`` allows ``limit`` tokens."""
        least = self._options.min_sample_len
        rows = self._keep(rows, self.lengths[rows] >= least, f"shorter than min_sample_len {least}")
        long = ~self._sliced[rows] & (self.lengths[rows] > limit)
        if self._options.excess_length_strategy == "raise" and long.any():
            raise self._too_long(rows[long], limit, option)
        if self._options.excess_length_strategy == "drop":
            return self._keep(rows, ~long, f"longer than {option} {limit}")
        self.truncated["rows"] += int(long.sum())
        self.truncated["tokens"] += int((self.lengths[rows[long]] - limit).sum())
        self.lengths[rows[long]] = limit
        kept = np.ones(len(rows), bool)
        kept[long] = [self._trains(row, limit) for row in rows[long].tolist()]
        return self._keep(rows, kept, f"nothing trained within {option}")

    def _keep(self, rows: np.ndarray, keep: np.ndarray, otherwise: str) -> np.ndarray:
        if left_out := int((~keep).sum()):
            self.dropped[otherwise] = self.dropped.get(otherwise, 0) + left_out
        return np.asarray(rows[keep])

    def _too_long(self, rows: np.ndarray, limit: int, option: str) -> RegrowError:
        row = int(rows[0])
        source = self._sources[int(self._tokens.source[row])]
        return RegrowError(
            f"{len(rows)} rows are longer than {option} {limit}; the first is row {self._tokens.row[row]} of {source['path']} "
            f"({source['file']}) with {self.lengths[row]} tokens.",
            f"Set {option} to {int(self.lengths[rows].max())} or more, or excess_length_strategy to drop or truncate.",
        )

    def slice(self, rows: np.ndarray, limit: int) -> Spans:
        """``rows`` as spans of at most ``limit`` tokens; leftovers that are too short, or train nothing, are left out."""
        own = self.lengths[rows]
        counts = -(-own // limit)
        row = np.repeat(rows, counts)
        start = (np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)) * limit
        spans = Spans(row, start, np.minimum(np.repeat(own, counts) - start, limit))
        keep = spans.length >= min(self._options.min_sample_len, limit)
        parts = np.flatnonzero(np.repeat(counts > 1, counts))
        keep[parts] &= self._tokens.count_trained(spans.row[parts], spans.start[parts], spans.length[parts]) > 0
        return spans.take(keep)

    def _trains(self, row: int, limit: int) -> bool:
        """Whether something is trained before ``limit``: of both answers where there are two, or there is nothing to compare."""
        both = not self._tokens.paired or bool(self._tokens.rejected_mask(row)[:limit].any())
        return both and bool(self._tokens.mask(row)[:limit].any())


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

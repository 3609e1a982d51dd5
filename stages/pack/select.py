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
from stages.pack.account import Account

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
    """What takes part, on which side, in order; and the account of what does not."""

    train: Spans
    evaluation: Spans
    account: Account


def select_rows(options: PackOptions, tokens: TokenTable, kept: KeptRows, sources: Sequence[Mapping[str, Any]]) -> Selection:
    """Length policy on kept rows, a seeded shuffle of the training rows, then the split takes the tail.

    Rows are split before long ones are sliced, so that no text is on both sides.
    """
    from_test = np.asarray([source["split"] == "test" for source in sources], bool)[tokens.source]
    policy = _LengthPolicy(options, tokens, sources)
    train = policy.apply(np.flatnonzero(kept.keep & ~from_test), options.sequence_len, "sequence_len")
    random = np.random.Generator(np.random.PCG64(options.seed))
    train = policy.part(_ordered(options, train, tokens.source, random))
    if not len(train):
        raise RegrowError(f"No training row is left: {_summary(policy.account)}.", "Check sequence_len and min_sample_len.")
    held_out = _held_out(options, len(train))
    test = np.flatnonzero(kept.keep & from_test)
    evaluation, train = np.concatenate([train[len(train) - held_out :], test]), train[: len(train) - held_out]
    limit = options.eval_sequence_len or options.sequence_len
    evaluation = policy.apply(evaluation, limit, "eval_sequence_len" if options.eval_sequence_len else "sequence_len")
    sides = policy.slice(train, options.sequence_len), policy.slice(evaluation, limit)
    if _shuffles(options) and len(sides[0]) > len(train):
        sides = sides[0].take(random.permutation(len(sides[0]))), sides[1]  # or the slices of a text would follow each other
    return Selection(sides[0], sides[1], policy.account)


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


class _LengthPolicy:
    """What becomes of rows that are too short or too long.

    Attributes:
        lengths: int64 ``[rows of the table]``, tokens that take part.
        account: what does not.
    """

    def __init__(self, options: PackOptions, tokens: TokenTable, sources: Sequence[Mapping[str, Any]]) -> None:
        self._options, self._tokens, self._sources = options, tokens, sources
        self._sliced = np.asarray([source.get("type") in _SLICED_TYPES for source in sources], bool)[tokens.source]
        self.lengths = tokens.longest.copy()
        self.account = Account(tokens.source, len(sources))

    def apply(self, rows: np.ndarray, limit: int, option: str) -> np.ndarray:
        """Those of ``rows`` that take part, in their order, where ``option`` allows ``limit`` tokens."""
        least = self._options.min_sample_len
        rows = self._keep(rows, self.lengths[rows] >= least, f"shorter than min_sample_len {least}")
        long = ~self._sliced[rows] & (self.lengths[rows] > limit)
        if self._options.excess_length_strategy == "raise" and long.any():
            raise self._too_long(rows[long], limit, option)
        if self._options.excess_length_strategy == "drop":
            return self._keep(rows, ~long, f"longer than {option} {limit}")
        kept = np.ones(len(rows), bool)
        kept[long] = self._trains(rows[long], limit)
        left = self._keep(rows, kept, f"nothing trained within {option}")
        cut = rows[long & kept]
        self.account.truncate(cut, self.lengths[cut] - limit, self.lengths[cut] == self._tokens.longest[cut])
        self.lengths[cut] = limit
        return left

    def part(self, rows: np.ndarray) -> np.ndarray:
        """One of dataset_shard_num stretches that are equal to within a row."""
        if self._options.dataset_shard_num is None:
            return rows
        owner = np.arange(len(rows))
        ours = np.array_split(owner, self._options.dataset_shard_num)[self._options.dataset_shard_idx or 0]
        return self._keep(rows, np.isin(owner, ours), "another part of dataset_shard_num")

    def _keep(self, rows: np.ndarray, keep: np.ndarray, otherwise: str) -> np.ndarray:
        if not keep.all():
            self.account.drop(rows[~keep], self.lengths[rows[~keep]], otherwise)
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
        if len(rows) and counts.max() == 1:
            return Spans(rows, np.zeros_like(rows), own)
        row = np.repeat(rows, counts)
        start = (np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)) * limit
        spans = Spans(row, start, np.minimum(np.repeat(own, counts) - start, limit))
        least = min(self._options.min_sample_len, limit)
        spans = self._keep_spans(spans, spans.length >= least, f"rest of a text, shorter than min_sample_len {least}")
        parts = np.flatnonzero((spans.start > 0) | (spans.length < self.lengths[spans.row]))
        trains = np.ones(len(spans), bool)
        trains[parts] = self._tokens.count_trained(spans.row[parts], spans.start[parts], spans.length[parts]) > 0
        return self._keep_spans(spans, trains, "part of a text with nothing to train")

    def _keep_spans(self, spans: Spans, keep: np.ndarray, otherwise: str) -> Spans:
        if keep.all():
            return spans
        left_out = spans.take(~keep)
        self.account.drop(left_out.row, left_out.length, otherwise)
        return spans.take(keep)

    def _trains(self, rows: np.ndarray, limit: int) -> np.ndarray:
        """bool ``[rows]``: is anything trained before ``limit``, of both answers where there are two, or there is nothing to compare."""
        start, length = np.zeros_like(rows), np.full_like(rows, limit)
        trains: np.ndarray = self._tokens.count_trained(rows, start, length) > 0
        return trains & (self._tokens.count_trained(rows, start, length, rejected=True) > 0) if self._tokens.paired else trains


def _held_out(options: PackOptions, rows: int) -> int:
    """Rows that ``val_set_size`` takes: a share of them below 1, all of them at 1, a number of them above."""
    size = options.val_set_size
    count = round(rows * size) if size <= 1 else int(size)
    if size not in (0, 1) and not 0 < count < rows:
        raise RegrowError(
            f"val_set_size: {size:g} would hold out {count} of {rows} rows.",
            f"Give a share between 0 and 1, 1 for all rows, or a number of rows below {rows}.",
        )
    return count


def _summary(account: Account) -> str:
    return "; ".join(f"{count} rows {reason}" for reason, count in account.totals()["dropped"].items()) or "there were none"

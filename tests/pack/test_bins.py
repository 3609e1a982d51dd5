"""The index of bins: bounds and limits of packing, and a digest that sees content and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import tokens as token_files
from pipeline.bins import Bins, Skips
from pipeline.tokens import TokenTable, TokenWriter
from stages.pack.assign import in_groups
from stages.pack.best_fit import best_fit_decreasing
from stages.pack.next_fit import next_fit
from stages.pack.sort import stable_order
from stages.pack.statistics import lower_bound

ROWS = st.integers(1, 60).flatmap(lambda capacity: st.tuples(st.just(capacity), st.lists(st.integers(1, capacity), max_size=80)))


@given(st.lists(st.integers(0, 2**40), max_size=40), st.integers(0, 40))
def test_order_is_that_of_a_stable_sort(numbers: list[int], bits: int) -> None:
    few = np.array([number % 2**bits for number in numbers], np.int64)
    assert stable_order(few).tolist() == np.argsort(few, kind="stable").tolist()


@settings(deadline=None, derandomize=True)
@given(ROWS, st.integers(1, 6))
def test_no_bin_holds_more_rows_or_tokens_than_it_may(case: tuple[int, list[int]], most: int) -> None:
    capacity, lengths = case[0], np.array(case[1], np.int64)
    for fit in (best_fit_decreasing, next_fit):
        bins = fit(lengths, capacity, most)
        counts = np.bincount(bins) if len(bins) else np.zeros(0, int)
        assert len(bins) == len(lengths) and (counts > 0).all() and (counts <= most).all()
        assert (np.bincount(bins, lengths) <= capacity).all() if len(bins) else True
        assert len(counts) >= lower_bound(lengths, capacity, most)
        assert fit(lengths, capacity, 80).tolist() == fit(lengths, capacity).tolist(), "a limit that is never met changes nothing"


@settings(deadline=None, derandomize=True)
@given(ROWS, st.integers(1, 30))
def test_groups_share_no_bin_and_are_packed_as_if_alone(case: tuple[int, list[int]], size: int) -> None:
    capacity, lengths = case[0], np.array(case[1], np.int64)
    bins = in_groups(lambda group: best_fit_decreasing(group, capacity), lengths, size)
    opened = 0
    for start in range(0, len(lengths), size):
        alone = best_fit_decreasing(lengths[start : start + size], capacity)
        assert bins[start : start + size].tolist() == (alone + opened).tolist()
        opened += int(alone.max()) + 1


def fewest_bins(lengths: Sequence[int], room: tuple[int, ...], capacity: int) -> int:
    """By trying all ways, longest rows first."""
    if not lengths:
        return len(room)
    tries = {tuple(sorted((*room[:at], space - lengths[0], *room[at + 1 :]))) for at, space in enumerate(room) if space >= lengths[0]}
    return min(fewest_bins(lengths[1:], found, capacity) for found in {*tries, (*room, capacity - lengths[0])})


@settings(deadline=None, derandomize=True, max_examples=150)
@given(st.integers(2, 12).flatmap(lambda capacity: st.tuples(st.just(capacity), st.lists(st.integers(1, capacity), max_size=7))))
def test_the_lower_bound_is_one_and_never_below_the_simple_ones(case: tuple[int, list[int]]) -> None:
    capacity, lengths = case
    bound = lower_bound(np.array(lengths, np.int64), capacity)
    assert max(-(-sum(lengths) // capacity), sum(2 * length > capacity for length in lengths)) <= bound
    assert bound <= fewest_bins(sorted(lengths, reverse=True), (), capacity)


def test_the_lower_bound_knows_what_does_not_fit_beside_long_rows() -> None:
    assert lower_bound(np.array([6, 6, 6]), 10) == 3
    assert lower_bound(np.array([7, 7, 4, 4]), 10) == 3  # each 7 leaves 3, which no 4 fits
    assert lower_bound(np.array([1] * 10), 10, most_rows=3) == 4


Row = tuple[list[int], list[bool]]
CONTENT = st.lists(
    st.lists(st.tuples(st.integers(0, 99), st.booleans()), min_size=1, max_size=9).map(
        lambda pairs: ([token for token, _ in pairs], [trained for _, trained in pairs])
    ),
    min_size=1,
    max_size=12,
)


def write(folder: Path, rows: Sequence[Row], dtype: type = np.uint16, batch_rows: int = 1024, shard_bytes: int = 2**28) -> TokenTable:
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch, TokenWriter(folder, np.dtype(dtype)) as writer:
        patch.setattr(token_files, "_BATCH_ROWS", batch_rows)
        patch.setattr(token_files, "SHARD_BYTES", shard_bytes)
        for number, (ids, mask) in enumerate(rows):
            writer.add(np.array(ids), np.array(mask), 0, number)
    return TokenTable(folder)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(CONTENT, st.data())
def test_equal_content_has_an_equal_digest_whatever_the_files(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Row], data: st.DataObject
) -> None:
    """Rows numbered otherwise, other rows between them, other shards and dtypes; cut rows and skips as well."""
    folder = tmp_path_factory.mktemp("tokens")
    place = np.array(data.draw(st.permutations(range(len(rows)))))
    more = [*rows, ([1, 2, 3], [True, True, True])]
    other: list[Row] = [more[-1]] * len(more)
    for number, row in enumerate(rows):
        other[int(place[number])] = row
    sizes = {"batch_rows": data.draw(st.integers(1, 5)), "shard_bytes": data.draw(st.sampled_from([1, 2**28]))}
    tables = write(folder / "a", rows), write(folder / "b", other, np.int32, **sizes)
    chosen = np.array(data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=8)), np.int64)
    starts = np.array([data.draw(st.integers(0, len(rows[row][0]) - 1)) for row in chosen], np.int32)
    lengths = np.array([data.draw(st.integers(1, len(rows[row][0]) - start)) for row, start in zip(chosen, starts, strict=True)], np.int32)
    borders = sorted(data.draw(st.sets(st.integers(1, len(chosen)), max_size=3)) | {0, len(chosen)})
    skips = None
    if data.draw(st.booleans()):
        skips = Skips(np.arange(len(chosen) + 1), np.ones(len(chosen), np.int32), np.full(len(chosen), 5, np.int32))
    digests = [
        Bins(np.array(borders), numbers, starts, lengths, skips).content_digest(table)
        for numbers, table in zip((chosen, place[chosen]), tables, strict=True)
    ]
    assert digests[0] == digests[1]


def test_every_difference_of_content_is_one_of_the_digest(tmp_path: Path) -> None:
    table = write(tmp_path / "a", [([3, 4, 5], [True] * 3), ([3, 4, 5], [False, True, True]), ([3, 4], [True, True])])

    def digest(rows: list[int], borders: list[int], lengths: list[int], skips: Skips | None = None) -> str:
        return Bins(np.array(borders), np.array(rows), np.zeros(len(rows), np.int32), np.array(lengths, np.int32), skips).content_digest(
            table
        )

    def jump(offsets: list[int], at: list[int], by: list[int]) -> Skips:
        return Skips(np.array(offsets), np.array(at, np.int32), np.array(by, np.int32))

    plain = digest([0, 2], [0, 2], [3, 2])
    assert digest([0, 2], [0, 2], [2, 2]) == digest([2, 2], [0, 2], [2, 2]), "the beginning of a row is the row that is no longer"
    made = [
        plain,
        digest([1, 2], [0, 2], [3, 2]),
        digest([2, 0], [0, 2], [2, 3]),
        digest([0, 2], [0, 1, 2], [3, 2]),
        digest([0, 2], [0, 2], [2, 2]),
        digest([0, 2], [0, 2], [3, 2], jump([0, 0, 0], [], [])),
        digest([0, 2], [0, 2], [3, 2], jump([0, 1, 1], [1], [5])),
        digest([0, 2], [0, 2], [3, 2], jump([0, 1, 1], [2], [5])),
        digest([0, 2], [0, 2], [3, 2], jump([0, 0, 1], [1], [5])),
    ]
    assert len(set(made)) == len(made)


def test_bins_with_skips_are_read_as_they_were_written(tmp_path: Path) -> None:
    skips = Skips(np.array([0, 2, 2, 3]), np.array([1, 3, 2], np.int32), np.array([10, 100, 7], np.int32))
    made = Bins(np.array([0, 2, 3]), np.array([4, 0, 2]), np.zeros(3, np.int32), np.array([5, 2, 3], np.int32), skips)
    made.save(tmp_path / "train.arrow")
    read = Bins.load(tmp_path / "train.arrow")
    assert read.skips is not None
    for number, positions in enumerate([[0, 11, 12, 113, 114, 0, 1], [0, 1, 9]]):
        assert made.position_ids(number).tolist() == read.position_ids(number).tolist() == positions
    assert read.seq_lengths(0).tolist() == [5, 2] and read.tokens_per_bin().tolist() == [7, 3]


def test_a_limit_of_rows_costs_no_bins_where_rows_are_long_enough_on_average() -> None:
    """The shortest rows together are far more than 200 to a bin."""
    lengths = np.random.default_rng(0).lognormal(5.6, 1, 20_000).clip(2, 32_768).astype(np.int64)
    bins = best_fit_decreasing(lengths, 32_768, 200)
    assert np.bincount(bins).max() <= 200 and np.bincount(bins, lengths).max() <= 32_768
    assert np.bincount(best_fit_decreasing(lengths, 32_768)).max() > 500
    assert bins.max() + 1 <= lower_bound(lengths, 32_768, 200) + 1

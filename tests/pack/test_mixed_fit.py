"""Short rows of similar length fill their bins to the token."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.pack.assign import fewest_bins
from stages.pack.best_fit import best_fit_decreasing
from stages.pack.mixed_fit import mixed_fit
from stages.pack.statistics import lower_bound


def check(bins: np.ndarray, lengths: np.ndarray, capacity: int, most_rows: int | None) -> None:
    """Every row in one bin, none over capacity or with too many rows, numbers without gaps."""
    assert len(bins) == len(lengths) and bins.min(initial=0) >= 0
    assert len(np.unique(bins)) == int(bins.max(initial=-1)) + 1
    assert np.bincount(bins, weights=lengths).max(initial=0) <= capacity
    assert most_rows is None or np.bincount(bins).max(initial=0) <= most_rows


@settings(max_examples=60, deadline=None)
@given(
    st.integers(8, 300),
    st.integers(0, 2**32 - 1),
    st.integers(0, 4000),
    st.floats(0.02, 1),
    st.floats(0, 0.5),
    st.sampled_from([None, 3, 9, 200]),
)
def test_no_row_is_lost_and_no_bin_too_full(capacity: int, seed: int, rows: int, mean: float, spread: float, most_rows: int | None) -> None:
    random = np.random.default_rng(seed)
    lengths = np.clip(random.normal(mean * capacity, spread * capacity, rows), 1, capacity).astype(np.int64)
    for fit in (mixed_fit, fewest_bins):
        check(fit(lengths, capacity, most_rows), lengths, capacity, most_rows)


@pytest.mark.parametrize("capacity", [256, 2048])
@pytest.mark.parametrize(("low", "high"), [(10, 6), (14, 7), (20, 12)])
def test_bins_are_full_where_best_fit_leaves_them_open(capacity: int, low: int, high: int) -> None:
    lengths = np.random.default_rng(1).integers(capacity // low, capacity // high + 1, 40_000)
    plain, mixed = (int(fit(lengths, capacity).max()) + 1 for fit in (best_fit_decreasing, fewest_bins))
    bound = lower_bound(lengths, capacity)
    assert bound <= mixed <= 1.001 * bound < 1.01 * bound < plain


def test_it_is_never_worse_than_best_fit() -> None:
    random = np.random.default_rng(2)
    for lengths in (random.integers(1, 257, 3000), np.full(3000, 33), random.integers(60, 70, 500)):
        plain, best = (int(fit(lengths, 256).max()) + 1 for fit in (best_fit_decreasing, fewest_bins))
        assert best <= plain


def test_which_rows_share_a_bin_depends_on_their_lengths_alone() -> None:
    lengths = np.random.default_rng(3).integers(20, 45, 5000)
    order = np.random.default_rng(4).permutation(len(lengths))

    def contents(of: np.ndarray) -> list[tuple[int, ...]]:
        bins = mixed_fit(of, 256)
        return sorted(tuple(sorted(of[bins == number].tolist())) for number in range(int(bins.max()) + 1))

    assert contents(lengths) == contents(lengths[order])
    assert np.array_equal(mixed_fit(lengths, 256), mixed_fit(lengths, 256))

"""Intervals and tests against published values and properties that any implementation must have."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.eval.statistics import mcnemar_p, percentile_interval, resample_means, wilson_interval


# R. G. Newcombe, "Two-sided confidence intervals for the single proportion", Statistics in Medicine 17 (1998), table I, method 3.
@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_published_values(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 10**6).flatmap(lambda trials: st.tuples(st.integers(0, trials), st.just(trials))))
def test_wilson_holds_the_share_stays_in_range_and_is_symmetric(counts: tuple[int, int]) -> None:
    successes, trials = counts
    low, high = wilson_interval(successes, trials)
    assert 0 <= low <= successes / trials <= high <= 1
    assert low < high
    assert wilson_interval(trials - successes, trials) == pytest.approx((1 - high, 1 - low), abs=1e-9)


@given(st.integers(0, 40), st.integers(0, 40))
def test_wilson_narrows_with_more_rows(successes: int, failures: int) -> None:
    trials = successes + failures + 1
    low, high = wilson_interval(successes, trials)
    more_low, more_high = wilson_interval(10 * successes, 10 * trials)
    assert more_high - more_low < high - low


@given(st.integers(0, 6), st.integers(0, 6))
def test_mcnemar_counts_all_outcomes_at_least_so_uneven(lost: int, gained: int) -> None:
    coins = list(product((0, 1), repeat=lost + gained))
    as_uneven = sum(abs(2 * sum(coin) - len(coin)) >= abs(gained - lost) for coin in coins)
    assert mcnemar_p(lost, gained) == pytest.approx(as_uneven / len(coins))


def test_mcnemar_is_near_the_normal_tail() -> None:
    # A. Agresti, "Categorical Data Analysis": of 1600 asked twice 150 turned one way and 86 the other, z = 4.17. Exact p lies
    # near the normal tail with continuity correction.
    assert mcnemar_p(150, 86) == pytest.approx(math.erfc((150 - 86 - 1) / math.sqrt(150 + 86) / math.sqrt(2)), rel=0.15)


def test_mcnemar_of_many_rows_is_a_number() -> None:
    assert 0 < mcnemar_p(1400, 1600) < 0.001
    assert mcnemar_p(0, 5000) == 0.0


def test_bootstrap_agrees_with_the_standard_error_of_a_mean() -> None:
    values = np.random.default_rng(3).normal(5.0, 2.0, 400)
    means = resample_means(values[None], np.ones(400), seed=1)
    low, high = percentile_interval(means[:, 0])
    error = values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.2 * error)


def test_bootstrap_weights_tokens_and_pairs_models() -> None:
    generator = np.random.default_rng(0)
    weights = generator.integers(1, 9, 50).astype(float)
    sums = weights * generator.normal(2.0, 0.5, 50)
    means = resample_means(np.stack([sums, sums + 0.25 * weights]), weights, seed=5)
    assert means[:, 1] - means[:, 0] == pytest.approx(np.full(len(means), 0.25))
    assert means[:, 0].mean() == pytest.approx(sums.sum() / weights.sum(), abs=0.03)


@given(st.lists(st.floats(0, 50), min_size=1, max_size=20), st.integers(0, 2**32 - 1))
def test_bootstrap_is_seeded_and_stays_between_the_rows(losses: list[float], seed: int) -> None:
    sums, weights = np.array([losses]), np.ones(len(losses))
    means = resample_means(sums, weights, seed, resamples=20)
    assert (means == resample_means(sums, weights, seed, resamples=20)).all()
    assert means.min() >= min(losses) - 1e-9
    assert means.max() <= max(losses) + 1e-9

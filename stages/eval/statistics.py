"""Intervals and tests. Pure functions on numbers and arrays; everything random is seeded.

Wilson: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
McNemar: exact form, the two-sided binomial test on the discordant pairs.
Bootstrap: percentile intervals over rows, 95 %.
"""

from __future__ import annotations

import math

import numpy as np

RESAMPLES = 2000
# The 97.5 % quantile of the standard normal distribution.
_Z = 1.959963984540054


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """95 % interval of a proportion; ``trials`` is at least 1. Stays within [0, 1] and has width even at 0 and 1."""
    share = successes / trials
    spread = _Z**2 / trials
    centre = (share + spread / 2) / (1 + spread)
    half = _Z / (1 + spread) * math.sqrt(share * (1 - share) / trials + spread / (4 * trials))
    # At 0 and 1 the bound is exact; rounding must not carry it past the share.
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def mcnemar_p(lost: int, gained: int) -> float:
    """Two-sided exact p for ``lost`` rows only the first got right and ``gained`` only the second did.

    The chance of a split at least so uneven if both models are equally good; 1.0 when they never disagree.
    """
    trials = lost + gained
    term = tail = 1
    for i in range(min(lost, gained)):
        term = term * (trials - i) // (i + 1)
        tail += term
    return min(1.0, 2 * tail / (1 << trials))


def resample_means(sums: np.ndarray, weights: np.ndarray, seed: int, resamples: int = RESAMPLES) -> np.ndarray:
    """Weighted means of bootstrap samples of rows; every model is resampled with the same rows, so differences are paired.

    Args:
        sums: float64 ``[models, rows]``, each row's total (negative log likelihood).
        weights: float64 ``[rows]``, what each row weighs (trained tokens); positive.

    Returns:
        float64 ``[resamples, models]``.
    """
    generator = np.random.default_rng(seed)
    rows = len(weights)
    means = np.empty((resamples, len(sums)))
    for i in range(resamples):
        picked = generator.integers(0, rows, rows)
        means[i] = sums[:, picked].sum(axis=1) / weights[picked].sum()
    return means


def percentile_interval(values: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of bootstrap values ``[resamples]``."""
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)

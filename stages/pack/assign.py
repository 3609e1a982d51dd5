"""Spans to bins, as the options ask."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pipeline.options.views import PackOptions
from stages.pack.best_fit import best_fit_decreasing
from stages.pack.mixed_fit import FEWEST_ROWS_PER_BIN, mixed_fit
from stages.pack.next_fit import next_fit
from stages.pack.statistics import lower_bound


def training_bins(options: PackOptions, lengths: np.ndarray) -> np.ndarray:
    """The bin of each span of ``lengths``, int64 ``[spans]``; one of its own where none is shared."""
    if not options.sample_packing:
        return np.arange(len(lengths))
    if options.sample_packing_sequentially or options.curriculum_sampling:
        return next_fit(lengths, options.sequence_len, options.sample_packing_bin_size)

    def fit(group: np.ndarray) -> np.ndarray:
        return fewest_bins(group, options.sequence_len, options.sample_packing_bin_size)

    return in_groups(fit, lengths, options.sample_packing_group_size)


def fewest_bins(lengths: np.ndarray, capacity: int, most_rows: int | None = None) -> np.ndarray:
    """Best fit, or a mixture of lengths where that leaves more than a thousandth of the bins too many and mixing needs fewer.

    Arguments and result are those of :func:`~stages.pack.best_fit.best_fit_decreasing`.
    """
    bins = best_fit_decreasing(lengths, capacity, most_rows)
    opened = int(bins.max(initial=-1)) + 1
    if opened <= 1.001 * lower_bound(lengths, capacity, most_rows) or len(lengths) < FEWEST_ROWS_PER_BIN * opened:
        return bins
    mixed = mixed_fit(lengths, capacity, most_rows)
    return mixed if int(mixed.max()) + 1 < opened else bins


def evaluation_bins(options: PackOptions, lengths: np.ndarray) -> np.ndarray:
    """Held-out rows keep their order, so that what is reported of them does not depend on their bins. The last bin stays, however full."""
    if not options.eval_sample_packing:
        return np.arange(len(lengths))
    return next_fit(lengths, options.eval_sequence_len or options.sequence_len, options.sample_packing_bin_size)


def in_groups(fit: Callable[[np.ndarray], np.ndarray], lengths: np.ndarray, size: int | None) -> np.ndarray:
    """``fit`` over stretches of ``size`` spans, one after the other, that share no bin; over all of them where there is no size."""
    if size is None or len(lengths) <= size:
        return fit(lengths)
    bins, opened = [], 0
    for start in range(0, len(lengths), size):
        bins.append(fit(lengths[start : start + size]) + opened)
        opened = int(bins[-1].max()) + 1
    return np.concatenate(bins)

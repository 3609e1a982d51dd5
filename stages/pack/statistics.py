"""How good a packing is, and what becomes of the rows of every source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.bins import Bins
from pipeline.kept import KeptRows
from pipeline.tokens import TokenTable
from stages.pack.account import Account, as_counts


def lower_bound(lengths: np.ndarray, capacity: int, most_rows: int | None = None) -> int:
    """Bins that no packing of ``lengths`` (int ``[rows]``, each in ``1..capacity``) can do without.

    The largest of: tokens over capacity, rows over ``most_rows``, and Martello and Toth's L2 (Knapsack Problems, 1990, §8.3):
    of rows longer than half a bin no two share one, and for every ``k`` no row of at least ``k`` tokens fits beside one that
    leaves less than ``k``.
    """
    counts = np.bincount(lengths)
    values = np.flatnonzero(counts)
    rows = np.concatenate([[0], np.cumsum(counts[values])])
    tokens = np.concatenate([[0], np.cumsum((counts * np.arange(len(counts)))[values])])
    half = capacity // 2
    least = np.concatenate([[1], values[values <= half]])
    up_to_half, below = np.searchsorted(values, half, "right"), np.searchsorted(values, least)
    up_to_rest = np.searchsorted(values, capacity - least, "right")
    shared = rows[up_to_rest] - rows[up_to_half]  # bins of a row longer than half, with room for k tokens
    room = shared * capacity - (tokens[up_to_rest] - tokens[up_to_half])
    more = np.maximum(0, -((room - (tokens[up_to_half] - tokens[below])) // capacity))
    alone = rows[-1] - rows[up_to_rest]
    by_rows = -(-len(lengths) // most_rows) if most_rows else 0
    return max(-(-int(tokens[-1]) // capacity), by_rows, int((alone + shared + more).max()))


def bin_facts(bins: Bins, tokens: TokenTable, capacity: int, most_rows: int | None) -> dict[str, Any]:
    """Counts of one split. ``capacity`` in tokens; ``most_rows`` where rows share bins and their number is limited."""
    total = int(bins.length.sum())
    return {
        "bins": len(bins),
        "rows": len(bins.row),
        "tokens": total,
        "trained_tokens": int(tokens.count_trained(bins.row, bins.start, bins.length).sum()),
        "efficiency": round(total / (len(bins) * capacity), 6) if len(bins) else 1.0,
        "lower_bound_bins": lower_bound(bins.length, capacity, most_rows),
        "longest": int(bins.length.max(initial=0)),
        "most_rows": int(np.diff(bins.offsets).max(initial=0)),
    }


def source_facts(
    splits: Mapping[str, Bins], tokens: TokenTable, kept: KeptRows, account: Account, sources: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """For each source rows and tokens: all, removed by dedupe, dropped (by reason), cut, and in each split.

    Of a row in parts, each part counts as a row of its split. Tokens add up: what is in no split was removed, dropped or cut.
    """
    every, gone = np.arange(len(tokens)), np.flatnonzero(~kept.keep)
    counts = {"all": account.count(every, tokens.longest), "removed": account.count(gone, tokens.longest[gone])}
    counts |= {split: account.count(bins.row, bins.length) for split, bins in splits.items()}
    return [
        {key: source[key] for key in ("name", "path", "file") if key in source}
        | {name: as_counts(counted[number]) for name, counted in counts.items()}
        | account.of_source(number)
        for number, source in enumerate(sources)
    ]

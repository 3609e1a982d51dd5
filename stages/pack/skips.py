"""PoSE: positions that skip inside short spans, so that a model meets the distances of a longer context.

D. Zhu et al., "PoSE: Efficient Context Window Extension of LLMs via Positional Skip-wise Training", arXiv 2309.10400 (2023).
"""

from __future__ import annotations

import numpy as np

from pipeline.bins import Skips
from pipeline.options.views import PackOptions
from pipeline.tokens import TokenTable
from stages.pack.select import Spans

_STREAM = 0x706F7365  # a sequence of random numbers of its own, so that shuffles stay as they are without PoSE


def draw_skips(options: PackOptions, spans: Spans, tokens: TokenTable) -> Skips:
    """Skips of every span: a pure function of the seed and of the spans in their order.

    A span is cut in ``pose_num_chunks`` equal pieces, or before every one of ``pose_split_on_token_ids``. Before each piece but the
    first, positions skip by a number that is drawn evenly from 0 to all that ``pose_max_context_len`` still leaves; skips of 0
    are not kept.
    """
    assert options.pose_max_context_len is not None
    offsets, at = _cuts(options, spans, tokens)
    room = np.maximum(options.pose_max_context_len - spans.length, 0)
    shares = np.random.Generator(np.random.PCG64([options.seed, _STREAM])).random(len(at))
    by, counts = np.zeros(len(at), np.int64), np.diff(offsets)
    for rank in range(int(counts.max(initial=0))):  # the cuts of one span depend on each other, those of different spans do not
        cut = np.flatnonzero(counts > rank)
        drawn = (shares[offsets[cut] + rank] * (room[cut] + 1)).astype(np.int64)
        by[offsets[cut] + rank] = drawn
        room[cut] -= drawn
    return _without_zeros(offsets, at, by)


def _cuts(options: PackOptions, spans: Spans, tokens: TokenTable) -> tuple[np.ndarray, np.ndarray]:
    """Where each span is cut: int64 offsets ``[spans + 1]`` and tokens of the span ``[cuts]``, none of them the first."""
    if options.pose_split_on_token_ids:
        wanted = np.asarray(options.pose_split_on_token_ids)
        found = [_occurrences(tokens, spans, number, wanted) for number in range(len(spans))]
        counts = np.asarray([len(cuts) for cuts in found], np.int64)
        return np.concatenate([[0], np.cumsum(counts)]), np.concatenate([np.zeros(0, np.int64), *found])
    pieces = options.pose_num_chunks or 2
    counts = np.where(spans.length >= pieces, pieces - 1, 0)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    piece = np.arange(offsets[-1]) - np.repeat(offsets[:-1], counts) + 1
    return offsets, piece * np.repeat(spans.length // pieces, counts)


def _occurrences(tokens: TokenTable, spans: Spans, number: int, wanted: np.ndarray) -> np.ndarray:
    start = int(spans.start[number])
    ids = tokens.ids(int(spans.row[number]))[start : start + int(spans.length[number])]
    return np.flatnonzero(np.isin(ids[1:], wanted)) + 1


def _without_zeros(offsets: np.ndarray, at: np.ndarray, by: np.ndarray) -> Skips:
    kept = np.concatenate([[0], np.cumsum(by > 0)])
    return Skips(kept[offsets], at[by > 0].astype(np.int32), by[by > 0].astype(np.int32))

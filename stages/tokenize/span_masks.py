"""From trained stretches of text to masks of tokens: a token is trained where it covers a trained character."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Span = tuple[int, int]
"""``[start, end)`` of a text."""


def mask_by_offsets(length: int, offsets: np.ndarray, trained: Sequence[Span]) -> np.ndarray:
    """uint8 ``[tokens]`` from character offsets.

    ``length`` of the text in characters, ``offsets`` int64 ``[tokens, 2]`` into it, ``trained`` spans of its characters.
    """
    edges = np.zeros(length + 1, np.int64)
    for start, end in trained:
        edges[start] += 1
        edges[end] -= 1
    covered = np.concatenate([[0], np.cumsum(np.cumsum(edges[:-1]) > 0)])
    return np.asarray(covered[offsets[:, 1]] > covered[offsets[:, 0]], np.uint8)


def mask_by_sizes(sizes: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """uint8 ``[tokens]`` from the bytes of each token.

    ``sizes`` int64 ``[tokens]``: bytes of each token, over all texts. ``spans`` int64 ``[spans, 2]``: trained bytes among all
    bytes, none empty. A token without bytes goes with the byte that follows it.
    """
    ends, edges = np.cumsum(sizes), np.zeros(len(sizes) + 1, np.int64)
    np.add.at(edges, np.searchsorted(ends, spans[:, 0], "right"), 1)
    np.add.at(edges, np.searchsorted(ends, spans[:, 1], "left") + 1, -1)
    mask = np.asarray(np.cumsum(edges[:-1]) > 0, np.uint8)
    if len(empty := np.flatnonzero(sizes == 0)):
        starts, stops = (np.searchsorted(np.sort(spans[:, side]), ends[empty], "right") for side in (0, 1))
        mask[empty] = starts > stops
    return mask


def spans_in_bytes(text: str, spans: Sequence[Span]) -> Sequence[Span]:
    """Character spans, in order, as UTF-8 byte spans."""
    if not spans or text.isascii():
        return spans
    made, at, byte = [], 0, 0
    for start, end in sorted(spans):
        first = byte + len(text[at:start].encode("utf-8")) if start >= at else len(text[:start].encode("utf-8"))
        at, byte = end, first + len(text[start:end].encode("utf-8"))
        made.append((first, byte))
    return made

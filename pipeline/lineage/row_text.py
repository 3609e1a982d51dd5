"""The text of one row, with the characters that each stretch of its tokens makes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pipeline.inspection.characters import TokenText, outside_characters


class RowText:
    """Text of the tokens ``ids`` ``[tokens]``. Bytes that are no UTF-8 are written ``\\xff``."""

    def __init__(self, tokens: TokenText, ids: np.ndarray) -> None:
        pieces = tokens.pieces(ids)
        self._data = b"".join(pieces)
        self._borders = [0, *np.cumsum([len(piece) for piece in pieces]).tolist()]
        self._special = np.isin(ids, tokens.special)
        self.text = _decoded(self._data)

    def characters(self, start: int, end: int) -> tuple[int, int]:
        """First character, and the one after the last, of the tokens ``start`` to ``end``; characters that were split count whole."""
        first = outside_characters(self._data, self._borders[start], forward=False)
        last = outside_characters(self._data, self._borders[end], forward=True)
        return len(_decoded(self._data[:first])), len(_decoded(self._data[:last]))

    def plain_runs(self) -> Iterator[tuple[int, int]]:
        """(first character, character after the last) of the text between special tokens."""
        borders = np.flatnonzero(np.diff(self._special, prepend=True, append=True)).tolist()
        for start, end in zip(borders[::2], borders[1::2], strict=True):
            yield self.characters(start, end)


def _decoded(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")

"""Bins as preferences: two answers to a prompt, or one that is wanted or not. A bin is one row."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Dataset

from pipeline.bins import Bins
from pipeline.errors import RegrowError
from pipeline.tokens import TokenTable


class Answer(NamedTuple):
    """A prompt with an answer to it: int64 ``[tokens]``, and bool ``[tokens]``, true where the answer is. No answer has the first token."""

    ids: np.ndarray
    mask: np.ndarray

    @property
    def prompt(self) -> int:
        """Tokens before the answer."""
        return int(self.mask.argmax())


class Pair(NamedTuple):
    """The better and the worse answer. ``reference``: what log-probability the reference gives each, where that is known."""

    chosen: Answer
    rejected: Answer
    reference: np.ndarray | None = None


class Feedback(NamedTuple):
    """An answer, whether it is wanted, and the prompt with an answer to another prompt."""

    answer: Answer
    wanted: bool
    mismatched: Answer


class _Rows(Dataset[Any]):
    def __init__(self, bins: Bins, tokens: TokenTable, *, what: str, there: bool) -> None:
        if not there:
            raise RegrowError(f"data/tokens has no {what}, so it was made for another kind of training.", "Run `dvc repro`.")
        if len(bins.row) != len(bins):
            raise RegrowError(
                "Rows that share a bin cannot be compared.", "Write `sample_packing: false` and `eval_sample_packing: false`."
            )
        self._bins, self._tokens = bins, tokens

    def __len__(self) -> int:
        return len(self._bins)

    def map(self, *_: Any, **__: Any) -> Any:
        """As it is: some of TRL's trainers would tokenize through this."""
        return self

    def _answer(self, number: int, *, rejected: bool = False) -> Answer:
        row, start = int(self._bins.row[number]), int(self._bins.start[number])
        span = slice(start, start + int(self._bins.length[number]))
        ids, mask = self._tokens.ids(row), self._tokens.mask(row)
        if rejected:
            ids, mask = self._tokens.rejected_ids(row), self._tokens.rejected_mask(row)
        answers = mask[span] != 0
        answers[:1] = False  # nothing predicts it
        return Answer(ids[span].astype(np.int64), answers)


class Pairs(_Rows):
    """Two answers by number of the bin."""

    def __init__(self, bins: Bins, tokens: TokenTable) -> None:
        super().__init__(bins, tokens, what="pairs of answers", there=tokens.paired)
        self.reference: np.ndarray | None = None
        """float32 ``[bins, 2]``, set when they are known before training."""

    def __getitem__(self, number: int) -> Pair:
        known = None if self.reference is None else self.reference[number]
        return Pair(self._answer(number), self._answer(number, rejected=True), known)


class Feedbacks(_Rows):
    """One answer by number of the bin. The answer that does not belong to its prompt is that of the next bin of the plan.

    ``longest``: where prompt and that answer together are longer, they are cut.
    """

    def __init__(self, bins: Bins, tokens: TokenTable, longest: int) -> None:
        super().__init__(bins, tokens, what="labels", there=tokens.labelled)
        self._longest = longest

    def __getitem__(self, number: int) -> Feedback:
        own, other = self._answer(number), self._answer((number + 1) % len(self))
        ids = np.concatenate([own.ids[: own.prompt], other.ids[other.prompt :]])[: self._longest]
        mask = np.concatenate([own.mask[: own.prompt], other.mask[other.prompt :]])[: self._longest]
        return Feedback(own, bool(self._tokens.labels(int(self._bins.row[number]))[0]), Answer(ids, mask))

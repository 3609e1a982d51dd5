"""Bins as prompts to answer, and the order in which they come: each as often as there are answers to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch.utils.data import Dataset

from pipeline.bins import Bins
from pipeline.errors import RegrowError
from pipeline.order import BinOrder
from pipeline.tokens import TokenTable
from stages.train.data.bins import EpochOrder


@dataclass(frozen=True)
class Question:
    """A prompt: its token ids, and its columns, ``prompt`` (text or messages) among them."""

    ids: list[int]
    columns: dict[str, Any]


class Prompts(Dataset[Question]):
    """Bins by number. A bin is one row; a column that a row lacks is ``None``.

    Raises:
        RegrowError: some prompts are texts and others messages, which answers to them would be too.
    """

    def __init__(self, bins: Bins, tokens: TokenTable) -> None:
        self._rows, self._tokens = bins.row.tolist(), tokens
        names: dict[str, None] = {}
        kinds = set()
        for row in self._rows:
            columns = tokens.reference(row)
            kinds.add(type(columns["prompt"]))
            names |= dict.fromkeys(columns)
        if len(kinds) > 1:
            raise RegrowError("Some prompts are texts, and others are messages.", "Train on datasets whose prompts are of one kind.")
        self._names = sorted(names)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> Question:
        row = self._rows[number]
        return Question(self._tokens.ids(row).tolist(), dict.fromkeys(self._names) | self._tokens.reference(row))


class PromptOrder(EpochOrder):
    """The order of an epoch: batches of ``together`` prompts, each prompt ``answers`` times, each batch ``times`` times.

    A batch is given anew for every micro-batch that is cut out of its answers; TRL answers it the first time.
    """

    def __init__(self, order: BinOrder, together: int, answers: int, times: int) -> None:
        super().__init__(order, 1)
        self._together, self._answers, self._times = together, answers, times

    def __len__(self) -> int:
        return len(self._order) * self._answers * self._times

    def __iter__(self) -> Iterator[int]:
        numbers = self._order.of_epoch(self.epoch).tolist()
        for first in range(0, len(numbers), self._together):
            batch = [number for number in numbers[first : first + self._together] for _ in range(self._answers)]
            for _ in range(self._times):
                yield from batch


def as_they_are(questions: list[Question]) -> list[Question]:
    """A batch of prompts: nothing is to be padded yet."""
    return questions

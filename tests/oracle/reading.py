"""A way in which Axolotl reads a case otherwise, and whether that is all of a difference."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from tests.oracle.case import Made, Row, Sequence
from tests.oracle.context import Context, Raw
from tests.oracle.ours import Change

Texts = Callable[[Raw, Context], Iterable[str]]


@dataclass(frozen=True)
class Reading:
    """A change of the case, and what our rows of the unchanged case must show.

    Attributes:
        applies: whether the config and the rows give the reading something to change.
        change: of the case.
        shows: texts of a row of the data that stand in what we make of it, where that differs from Axolotl's.
        refusal: what we say where we stop at the unchanged case.
        fewer: whether our rows are a part of Axolotl's; then nothing else may differ.
        anew: whether the whole text around what is said may differ; else only what is shown may.
        then: from our rows of the changed case to Axolotl's, where the case alone cannot say it.
    """

    applies: Callable[[Context], bool]
    change: Change
    shows: Texts = lambda row, context: ()
    refusal: str | None = None
    fewer: bool = False
    anew: bool = False
    then: Callable[[Made, Context], Made] = lambda made, context: made

    def is_all(self, ours: Made, theirs: Made, context: Context) -> bool:
        """Whether the reading is all that makes ``ours`` (of the case) and ``theirs`` (of the changed one) differ."""
        if ours.error is not None:
            return self.refusal is not None and re.search(self.refusal, ours.error) is not None
        if theirs.error is not None:  # Axolotl stops where we make something of every row
            return {row.number for row in ours.rows} == set(context.rows)
        made: dict[Any, list[Row]] = {}
        for row in theirs.rows:
            made.setdefault(row.number, []).append(row)
        if self.fewer:
            return 0 < len(ours.rows) < len(theirs.rows) and all(row in made.get(row.number, ()) for row in ours.rows)
        return all(any(self._same(row, other, context) for other in made.get(row.number, [])) for row in ours.rows)

    def _same(self, row: Row, other: Row, context: Context) -> bool:
        return row == other or (self._shown(row, other, context) and _answers_are_trained(row))

    def _shown(self, row: Row, other: Row, context: Context) -> bool:
        raw = context.raw(row.number)
        if self.change.row is not None:
            changed = _copy(raw)
            self.change.row(changed)
            if changed == raw:
                return False
        texts = [text.strip() for text in self.shows(raw, context) if text.strip()]
        here = all(any(text in context.decode(answer.ids) for answer in row.answers) for text in texts)
        said = [chunk for pair in zip(row.answers, other.answers, strict=True) for chunk in _changed(*pair, context)]
        known = self.anew or all(any(text in chunk or chunk in text for text in texts) for chunk in said if not _TAGS.fullmatch(chunk))
        return bool(texts) and here and known


_TAGS = re.compile(r"(</?\w+>|[ \n])*")


def _changed(ours: Sequence, theirs: Sequence, context: Context) -> list[str]:
    """Texts of the stretches of ours that theirs does not have, or trains otherwise."""
    left, right = (list(zip(made.ids, made.labels, strict=True)) for made in (theirs, ours))
    stretches = difflib.SequenceMatcher(None, left, right, autojunk=False).get_opcodes()
    return [context.decode(ours.ids[start:end]).strip(" \n") for kind, _, _, start, end in stretches if kind != "equal" and start < end]


def _answers_are_trained(row: Row) -> bool:
    """Of a row with two answers or a verdict: all from some token on is trained, and nothing before it."""
    if row.rejected is None and row.wanted is None:
        return True
    starts = [(made, next((at for at, label in enumerate(made.labels) if label != -100), 0)) for made in row.answers]
    return all(made.labels[start:] == made.ids[start:] for made, start in starts)


def _copy(row: Any) -> Any:
    if isinstance(row, dict):
        return {key: _copy(value) for key, value in row.items()}
    return [_copy(value) for value in row] if isinstance(row, list) else row

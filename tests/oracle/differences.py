"""Where Axolotl is wrong on purpose of ours, as functions that make its rows what they should be.

Each has a section of the same name in docs/differences.md with the reason. A case is documented when its rows are equal after some
of these, so that a further case of the same kind needs no list of names.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Items
from dataclasses import dataclass, replace

from tests.oracle.case import Row, Sequence


@dataclass(frozen=True)
class Context:
    """What a correction may look at besides the two rows.

    Attributes:
        bos: id of the beginning-of-sequence token, or None.
        ends: ids of tokens that end a turn.
    """

    bos: int | None
    ends: frozenset[int]


def rows_that_train_nothing(theirs: Items[Row]) -> list[Row]:
    """Left out: they cost compute and change nothing."""
    return [row for row in theirs if any(label != -100 for label in row.chosen.labels)]


def end_of_an_empty_turn(theirs: Sequence, ours: Sequence, context: Context) -> Sequence:
    """An empty answer is an answer: its end is trained."""
    return _relabelled(theirs, ours, lambda at: ours.ids[at] in context.ends and at > 0 and ours.labels[at - 1] == -100)


def double_bos(theirs: Sequence, ours: Sequence, context: Context) -> Sequence:
    """A template that prints the beginning of sequence needs no second one."""
    if context.bos is not None and theirs.ids[:2] == (context.bos, context.bos) and ours.ids[:2] != theirs.ids[:2]:
        return Sequence(theirs.ids[1:], theirs.labels[1:])
    return theirs


def _relabelled(theirs: Sequence, ours: Sequence, when: Callable[[int], bool]) -> Sequence:
    """``theirs`` with our labels at the positions where they differ, if ``when`` holds at each of them."""
    if theirs.ids != ours.ids:
        return theirs
    differing = [at for at, (left, right) in enumerate(zip(theirs.labels, ours.labels, strict=True)) if left != right]
    return replace(theirs, labels=ours.labels) if differing and all(map(when, differing)) else theirs


CORRECTIONS: dict[str, Callable[[Sequence, Sequence, Context], Sequence]] = {
    "end-of-an-empty-turn": end_of_an_empty_turn,
    "double-bos": double_bos,
}
"""By the name of their section in docs/differences.md; each corrects one of Axolotl's sequences, given ours."""

"""Two lists of rows side by side, with what only one of them has."""

from __future__ import annotations

import math
from collections.abc import Sequence as Items

from tests.oracle.case import Expected, Made, Row
from tests.oracle.context import Context
from tests.oracle.left_out import FURTHER, MISSING, bad_rows
from tests.oracle.masks import MASKS, Pair


class Different(Exception):
    """The rows differ, and nothing that is known explains it. The text says where."""


def compare_rows(expected: Expected, ours: Made, context: Context) -> set[str]:
    """Names of the differences.

    Raises:
        Different: there is another one.
    """
    if expected.ordered:
        return _Sides(expected.made, ours, context).compare(
            [(expected.made.train, ours.train, "train"), (expected.made.evaluation, ours.evaluation, "eval")]
        )
    sides = _Sides(expected.made, ours, context)
    theirs = sorted(expected.made.rows, key=lambda row: row.chosen.ids)
    names = sides.compare([(theirs, sorted(ours.rows, key=lambda row: row.chosen.ids), "train and eval")])
    _require_sizes(expected.made, ours, context)
    return names


def _require_sizes(theirs: Made, ours: Made, context: Context) -> None:
    """The same rows in both splits, or the split that val_set_size asks of the rows we have."""
    sizes, made = (len(theirs.train), len(theirs.evaluation)), (len(ours.train), len(ours.evaluation))
    share = float(context.config.get("val_set_size") or 0)
    wanted = math.ceil(share * len(ours.rows)) if share < 1 else int(share)
    if sizes != made and made[1] not in ((wanted, sizes[1]) if not context.config.get("test_datasets") else (sizes[1],)):
        raise Different(f"{sizes} train and eval rows expected, {made} made")


class _Sides:
    def __init__(self, theirs: Made, ours: Made, context: Context) -> None:
        self._theirs, self._ours, self._context = theirs, ours, context
        self._bad = bad_rows(ours)
        self._used: set[str] = set()

    def compare(self, sides: Items[tuple[Items[Row], Items[Row], str]]) -> set[str]:
        for theirs, made, side in sides:
            self._compare(theirs, made, side)
        return self._used

    def _compare(self, theirs: Items[Row], made: Items[Row], side: str) -> None:
        place, problem = 0, ""
        for number, row in enumerate(theirs):
            while True:
                found = same_row(row, made[place], self._context) if place < len(made) else f"{len(theirs)} expected, {len(made)} made"
                if not isinstance(found, str):
                    self._used |= found
                    place += 1
                    break
                problem = problem or f"{side} row {number}: {found}"
                if self._is_missing(row):
                    break
                if place >= len(made) or not self._is_further(made, place):
                    raise Different(problem)
                place += 1
            problem = ""
        while place < len(made):
            if not self._is_further(made, place):
                raise Different(f"{len(theirs)} {side} rows expected, {len(made)} made")
            place += 1

    def _is_missing(self, row: Row) -> bool:
        name = next((name for name, allows in MISSING.items() if allows(row, self._theirs, self._ours, self._context)), None)
        if name is None:
            name = next((name for name, left in self._bad.items() if left), None)
            if name is None:
                return False
            self._bad[name] -= 1
        self._used.add(name)
        return True

    def _is_further(self, made: Items[Row], place: int) -> bool:
        name = next((name for name, allows in FURTHER.items() if allows(made[place], made[:place], self._context)), None)
        self._used |= {name} if name is not None else set()
        return name is not None


def same_row(theirs: Row, ours: Row, context: Context) -> set[str] | str:
    """Names of the differences that make the rows the same, or where they differ."""
    names: set[str] = set()
    if len(theirs.answers) != len(ours.answers):
        return f"{len(theirs.answers)} answers expected, {len(ours.answers)} made"
    if theirs.wanted != ours.wanted:
        return f"label {theirs.wanted} expected, {ours.wanted} made"
    for left, right in zip(theirs.answers, ours.answers, strict=True):
        for name, correct in MASKS.items():
            if left != right and (corrected := correct(Pair(left, right, context.raw(ours.number), context))) != left:
                left = corrected
                names.add(name)
        if left.ids != right.ids:
            return f"ids: {first_difference(left.ids, right.ids)}"
        if left.labels != right.labels:
            return f"labels: {first_difference(left.labels, right.labels)}"
    return names


def first_difference(expected: Items[object], made: Items[object]) -> str:
    """Where two lists or texts differ first, and what stands there."""
    at = next((i for i, (left, right) in enumerate(zip(expected, made, strict=False)) if left != right), min(len(expected), len(made)))
    return f"at {at} of {len(expected)}: {expected[at : at + 24]!r} expected, {made[at : at + 24]!r} made ({len(made)})"

"""Ours against Axolotl's: equal, documented (by which differences), or different (where)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from collections.abc import Sequence as Items

from tests.oracle.case import Expected, Made, Row, Sequence
from tests.oracle.differences import CORRECTIONS, Context, rows_that_train_nothing

Decode = Callable[[Items[int]], str]


def verdict(expected: Expected, ours: Made, context: Context, decode: Decode) -> str:
    """One of ``equal``, ``documented: names``, ``different: what``."""
    if expected.made.error is not None:
        if ours.error is not None or ours.rejected:
            return "equal"
        return f"different: Axolotl stops ({expected.made.error[:80]}), we make {len(ours.train)} rows and reject none"
    if ours.error is not None:
        return f"different: {ours.error.splitlines()[0][:300]}"
    if expected.texts:
        return _compare_texts(expected, ours, decode)
    return _compare_rows(expected, ours, context)


def _compare_texts(expected: Expected, ours: Made, decode: Decode) -> str:
    """Preference rows: the texts, and the ids that trl makes of them where they are given."""
    used: set[str] = set()
    if len(expected.texts) != len(ours.train):
        return f"different: {len(expected.texts)} rows expected, {len(ours.train)} made, {len(ours.rejected)} rejected"
    for number, (text, row) in enumerate(zip(expected.texts, ours.train, strict=True)):
        for name, answer in (("chosen", row.chosen), ("rejected", row.rejected), ("completion", row.chosen)):
            if name in text and answer is not None and (problem := _text_problem(text["prompt"], text[name], answer, decode)):
                return f"different: row {number}, {name}: {problem}"
    for number, (theirs, row) in enumerate(zip(expected.made.train, ours.train, strict=False)):
        if theirs.wanted != row.wanted:
            return f"different: row {number}: label {theirs.wanted} expected, {row.wanted} made"
        for left, right in ((theirs.chosen, row.chosen), (theirs.rejected, row.rejected)):
            if left is not None and left != right:
                used.add("seam-of-prompt-and-answer")  # the texts are the same, the ids are cut elsewhere
    return f"documented: {', '.join(sorted(used))}" if used else "equal"


def _text_problem(prompt: str, answer: str, made: Sequence, decode: Decode) -> str | None:
    whole = decode(made.ids)
    if prompt + answer not in whole[: len(prompt + answer) + 64]:  # before it a beginning of sequence, after it an end
        return f"{_first_difference(prompt + answer, whole)}"
    return None


def _compare_rows(expected: Expected, ours: Made, context: Context) -> str:
    used: set[str] = set()
    sides = [(list(expected.made.train), list(ours.train), "train"), (list(expected.made.evaluation), list(ours.evaluation), "eval")]
    if not expected.ordered:
        sizes = [(len(theirs), len(made), side) for theirs, made, side in sides]
        sides = [(sides[0][0] + sides[1][0], sides[0][1] + sides[1][1], "train and eval")]
        kept = [
            (len(rows_that_train_nothing(theirs)), len(made))
            for theirs, made in ((expected.made.train, ours.train), (expected.made.evaluation, ours.evaluation))
        ]
        if any(theirs != made for theirs, made, _ in sizes) and any(theirs != made for theirs, made in kept):
            return "different: " + ", ".join(f"{theirs} {side} rows expected, {made} made" for theirs, made, side in sizes)
    for theirs, made, side in sides:
        if len(theirs) != len(made) and len(trained := rows_that_train_nothing(theirs)) == len(made):
            theirs = trained
            used.add("rows-that-train-nothing")
        if len(theirs) != len(made):
            left_out = Counter(ours.rejected).most_common(2)
            return f"different: {len(theirs)} {side} rows expected, {len(made)} made, {len(ours.rejected)} rejected {left_out}"
        problem = _compare_side(theirs, made if expected.ordered else _matched(theirs, made), context, used)
        if problem:
            return f"different: {side} {problem}"
    return f"documented: {', '.join(sorted(used))}" if used else "equal"


def _matched(theirs: Items[Row], made: Items[Row]) -> list[Row]:
    """Ours in the order of theirs: by equal ids, else in the order they come."""
    left = list(made)
    found = []
    for row in theirs:
        same = [other for other in left if other == row] or [other for other in left if other.chosen.ids == row.chosen.ids] or left
        found.append(same[0])
        left.remove(same[0])
    return found


def _compare_side(theirs: Items[Row], made: Items[Row], context: Context, used: set[str]) -> str | None:
    for number, (expected, row) in enumerate(zip(theirs, made, strict=True)):
        for name, left, right in (("", expected.chosen, row.chosen), ("rejected ", expected.rejected, row.rejected)):
            if left is None or right is None:
                if left is not right:
                    return f"row {number}: {name}answer expected {left is not None}, made {right is not None}"
                continue
            problem = _compare_sequence(left, right, context, used)
            if problem:
                return f"row {number}: {name}{problem}"
    return None


def _compare_sequence(theirs: Sequence, ours: Sequence, context: Context, used: set[str]) -> str | None:
    for name, correct in CORRECTIONS.items():
        if theirs != ours and (corrected := correct(theirs, ours, context)) != theirs:
            theirs = corrected
            used.add(name)
    if theirs.ids != ours.ids:
        return f"ids: {_first_difference(theirs.ids, ours.ids)}"
    if theirs.labels != ours.labels:
        return f"labels: {_first_difference(theirs.labels, ours.labels)}"
    return None


def _first_difference(expected: Items[object], made: Items[object]) -> str:
    at = next((i for i, (left, right) in enumerate(zip(expected, made, strict=False)) if left != right), min(len(expected), len(made)))
    return f"at {at} of {len(expected)}: {expected[at : at + 24]!r} expected, {made[at : at + 24]!r} made ({len(made)})"

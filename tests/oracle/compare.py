"""Ours against Axolotl's: equal, documented (by which differences), or different (where)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from tests.oracle.align import Different, compare_rows, first_difference
from tests.oracle.case import Expected, Made, Sequence
from tests.oracle.context import Context
from tests.oracle.left_out import BAD_ROWS, trains_nothing
from tests.oracle.ours import Change
from tests.oracle.reading import Reading
from tests.oracle.readings import READINGS, UNKNOWN, without_unknown_keys
from tests.oracle.stops import stop_of

Again = Callable[[Change], tuple[Made, Context]]
"""Our rows of the case with a change, and what is known of it then."""


def verdict(expected: Expected, ours: Made, context: Context, again: Again) -> str:
    """One of ``equal``, ``documented: names``, ``different: what``."""
    try:
        names = compare(expected, ours, context)
    except Different as problem:
        found = _by_reading(expected, ours, context, again)
        if found is None:
            return f"different: {problem}"
        names = found
    return f"documented: {', '.join(sorted(names))}" if names else "equal"


def compare(expected: Expected, ours: Made, context: Context) -> set[str]:
    """Names of the differences.

    Raises:
        Different: there is another one.
    """
    if expected.made.error is not None:
        return _compare_stop(expected.made.error, ours, context)
    if ours.error is not None:
        return _compare_error(expected, ours.error, context)
    return _compare_texts(expected, ours, context) if expected.texts else compare_rows(expected, ours, context)


def _compare_stop(error: str, ours: Made, context: Context) -> set[str]:
    if ours.error is not None or ours.rejected:
        return set()
    name = stop_of(error, ours, context)
    if name is None:
        raise Different(f"Axolotl stops ({error[:120]}), we make {len(ours.rows)} rows and reject none")
    return {name}


_NOTHING = r"no trained token|the answer is empty|longer than sequence_len|shorter than min_sample_len"


def _compare_error(expected: Expected, error: str, context: Context) -> set[str]:
    """Where no row is left, an error says so; Axolotl has as many rows that train nothing, or none at all."""
    said = re.search(r"no row can be used: (.*)\.$|No training row is left: (.*)\.$", error.splitlines()[0])
    names = {*map(_name_of, (said[1] or said[2]).split("; "))} if said and not expected.texts else {None}
    left = [row for row in expected.made.rows if not trains_nothing(row, expected.made, Made(), context)]
    if None in names or (left and names == {"rows-that-train-nothing"}):
        raise Different(error.splitlines()[0][:300])
    return {name for name in names if name is not None}


def _name_of(reason: str) -> str | None:
    if re.search(_NOTHING, reason):
        return "rows-that-train-nothing"
    return next((name for name, pattern in BAD_ROWS.items() if re.search(pattern, reason)), None)


def _by_reading(expected: Expected, ours: Made, context: Context, again: Again) -> set[str] | None:
    """Names of the reading of the case that explains all of the difference, and of what is left."""
    unknown = without_unknown_keys(ours.error) if ours.error is not None else None
    for name, reading in {**READINGS, **({UNKNOWN: unknown} if unknown is not None else {})}.items():
        try:
            found = _read(expected, ours, context, again, reading) if reading.applies(context) else None
        except (LookupError, TypeError, AttributeError):  # rows of another shape than the reading is for
            continue
        if found is not None:
            return found | {name}
    return None


def _read(expected: Expected, ours: Made, context: Context, again: Again, reading: Reading) -> set[str] | None:
    theirs, known = again(reading.change)
    if not context.rows:  # we stopped before there were any
        context = replace(context, rows=known.rows)
    if not reading.is_all(ours, theirs, context):
        return None
    try:
        return compare(expected, reading.then(theirs, context), context)
    except Different:
        return None


def _compare_texts(expected: Expected, ours: Made, context: Context) -> set[str]:
    """Preference rows: the texts, and the ids that trl makes of them where they are given."""
    names: set[str] = set()
    if len(expected.texts) != len(ours.train):
        raise Different(f"{len(expected.texts)} rows expected, {len(ours.train)} made, {len(ours.rejected)} rejected")
    for number, (text, row) in enumerate(zip(expected.texts, ours.train, strict=True)):
        for name, answer in (("chosen", row.chosen), ("rejected", row.rejected), ("completion", row.chosen)):
            if name in text and answer is not None:
                _require_answer(text["prompt"], text[name], answer, context, f"row {number}, {name}")
    for number, (theirs, row) in enumerate(zip(expected.made.train, ours.train, strict=False)):
        if theirs.wanted != row.wanted:
            raise Different(f"row {number}: label {theirs.wanted} expected, {row.wanted} made")
        if theirs.answers != row.answers:
            names.add("seam-of-prompt-and-answer")  # the texts are the same, the ids are cut elsewhere
    return names


def _require_answer(prompt: str, answer: str, made: Sequence, context: Context, where: str) -> None:
    """The text is prompt and answer, and what is trained of it is the answer: from its first token on, all."""
    text, whole = prompt + answer, context.decode(made.ids)
    start = whole[: len(text) + 64].find(text)  # before it a beginning of sequence, after it an end
    if start < 0:
        raise Different(f"{where}: {first_difference(text, whole)}")
    masked = next((at for at, label in enumerate(made.labels) if label != -100), len(made.ids))
    border, before = start + len(prompt), [len(context.decode(made.ids[:end])) for end in (masked, masked + 1)]
    if made.labels[masked:] != made.ids[masked:] or not before[0] <= border < before[1]:
        raise Different(f"{where}: trained is {context.decode(made.ids[masked:])!r}, expected {answer!r}")

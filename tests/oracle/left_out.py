"""Rows that only one of the two makes, and why that is right. Each reason has a section of its name in docs/differences.md."""

from __future__ import annotations

import re
from collections.abc import Callable
from collections.abc import Sequence as Items

from tests.oracle.case import Made, Row
from tests.oracle.context import Context

Missing = Callable[[Row, Made, Made, Context], bool]
"""Whether we are right to leave out a row of Axolotl's: from the row, all of Axolotl's, all of ours."""


def trains_nothing(row: Row, theirs: Made, ours: Made, context: Context) -> bool:
    """It costs compute and changes nothing."""
    return row.rejected is None and all(label == -100 for label in row.chosen.labels)


def answers_are_the_same(row: Row, theirs: Made, ours: Made, context: Context) -> bool:
    """Cut off before the answers, so that both are the prompt."""
    return row.rejected is not None and row.chosen == row.rejected


def is_tested_too(row: Row, theirs: Made, ours: Made, context: Context) -> bool:
    """Deduplication keeps it on one side."""
    return bool(context.config.get("dataset_exact_deduplication")) and row in theirs.evaluation and row in ours.evaluation


MISSING: dict[str, Missing] = {
    "rows-that-train-nothing": trains_nothing,
    "pairs-cut-to-the-same": answers_are_the_same,
    "rows-that-are-tested-too": is_tested_too,
}

BAD_ROWS = {
    "calls-that-a-template-does-not-print": r"tool calls alone, which the chat template does not print",
    "steps-without-a-label": r"\d+ completions and \d+ labels",
}
"""Rows that we leave out, by what we say of them. Axolotl has a row for each."""


def bad_rows(ours: Made) -> dict[str, int]:
    """How many rows we left out for each of these reasons."""
    counts = {name: sum(re.search(pattern, reason) is not None for reason in ours.rejected) for name, pattern in BAD_ROWS.items()}
    return {name: count for name, count in counts.items() if count}


Further = Callable[[Row, Items[Row], Context], bool]
"""Whether we are right to have a row that Axolotl lacks: from the row, and ours before it."""

_MOST = 64


def end_of_a_long_text(row: Row, before: Items[Row], context: Context) -> bool:
    """Axolotl takes no more than 64 times sequence_len tokens of a text."""
    slices = [other for other in before if other.number == row.number]
    full = all(len(other.chosen.ids) == context.config["sequence_len"] for other in slices)
    known = full and context.is_of_its_text(row.chosen, context.raw(row.number))
    return context.type_is("completion", "pretrain") and len(slices) >= _MOST and known


def end_of_a_streamed_text(row: Row, before: Items[Row], context: Context) -> bool:
    """Axolotl takes one row of a text that it streams for pretraining."""
    goes_on = any(other.number == row.number for other in before) and context.is_of_its_text(row.chosen, context.raw(row.number))
    return bool(context.config.get("pretraining_dataset")) and goes_on


FURTHER: dict[str, Further] = {
    "texts-over-64-sequences": end_of_a_long_text,
    "documents-without-an-end": end_of_a_streamed_text,
}

"""Which tokens of a row are judged, and how rows are batched."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stages.eval.rows import HeldOutRow, make_batches


def row(mask: list[int]) -> HeldOutRow:
    return HeldOutRow(np.arange(10, 10 + len(mask)), np.array(mask, bool), 0, 0)


def test_runs_are_unbroken_and_may_reach_the_end() -> None:
    several_turns = row([0, 0, 1, 1, 0, 1])
    assert several_turns.first == 2
    assert several_turns.runs() == [(2, 4), (5, 6)]
    assert row([0, 1, 1]).runs() == [(1, 3)]


@given(st.lists(st.integers(1, 60), max_size=40), st.integers(1, 8), st.integers(1, 200))
def test_every_row_is_in_one_batch_within_the_limits(lengths: list[int], batch_size: int, max_tokens: int) -> None:
    batches = list(make_batches(lengths, batch_size, max_tokens))
    assert sorted(number for batch in batches for number in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) <= batch_size
        assert len(batch) == 1 or len(batch) * max(lengths[number] for number in batch) <= max_tokens
    order = [lengths[number] for batch in batches for number in batch]
    assert order == sorted(order)

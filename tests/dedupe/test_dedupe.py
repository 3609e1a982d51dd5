"""dedupe: equal rows once, evaluation rows win, nothing else goes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kept import KeptRows
from pipeline.tokens import digest_row
from stages.dedupe import STAGE
from stages.dedupe.exact import find_duplicates
from tests.tiny import publish_tokens, run_stage


def test_rows_with_equal_ids_and_mask_stay_once(tmp_path: Path) -> None:
    rows = [([5, 6, 7], [0, 1, 1]), ([5, 6, 8], [0, 1, 1]), ([5, 6, 7], [0, 1, 1]), ([5, 6, 7], [0, 0, 1])]
    publish_tokens(tmp_path / "data", rows)
    _, metrics = run_stage(STAGE, tmp_path, {"dataset_exact_deduplication": True})
    index = KeptRows.load(tmp_path / "data/dedupe/index.arrow")
    assert index.keep.tolist() == [True, True, False, True]
    assert index.duplicate_of.tolist() == [-1, -1, 0, -1] and index.reason[2] == "exact duplicate"
    assert metrics == {"rows": 4, "kept": 3, "removed": {"exact duplicate": 1}}


def test_nothing_is_removed_unless_asked(tmp_path: Path) -> None:
    publish_tokens(tmp_path / "data", [([5], [1]), ([5], [1])])
    run_stage(STAGE, tmp_path)
    assert KeptRows.load(tmp_path / "data/dedupe/index.arrow").keep.all()


@settings(deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=40))
def test_every_content_stays_exactly_once_and_on_the_evaluation_side_if_it_is_there(rows: list[tuple[int, bool]]) -> None:
    digests = [digest_row(np.array([value]), np.array([1])) for value, _ in rows]
    numbers = np.frombuffer(b"".join(digests), "<u8").reshape(-1, 2)
    index = find_duplicates(numbers, np.asarray([evaluation for _, evaluation in rows], bool))
    kept = [rows[i] for i in np.flatnonzero(index.keep)]
    assert sorted(value for value, _ in kept) == sorted({value for value, _ in rows})
    assert {value for value, evaluation in kept if evaluation} == {value for value, evaluation in rows if evaluation}
    for row in np.flatnonzero(~index.keep):
        assert index.keep[index.duplicate_of[row]] and digests[index.duplicate_of[row]] == digests[row]

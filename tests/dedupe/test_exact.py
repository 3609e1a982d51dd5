"""Equal rows stay once, evaluation rows win, nothing else goes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kept import EXACT, KeptRows
from stages.dedupe import STAGE
from stages.dedupe.exact import remove_duplicates
from tests.dedupe.workspace import dedupe, digests, publish_sources, save_words
from tests.tiny import publish_artifact, publish_tokens, run_stage


def test_rows_with_equal_ids_and_mask_stay_once(tmp_path: Path) -> None:
    rows = [([5, 6, 7], [0, 1, 1]), ([5, 6, 8], [0, 1, 1]), ([5, 6, 7], [0, 1, 1]), ([5, 6, 7], [0, 0, 1])]
    publish_tokens(tmp_path / "data", rows)
    publish_artifact(tmp_path / "data", "tokenizer", save_words)
    _, metrics = run_stage(STAGE, tmp_path, {"dataset_exact_deduplication": True})
    index = KeptRows.load(tmp_path / "data/dedupe/index.arrow")
    assert index.keep.tolist() == [True, True, False, True]
    assert index.duplicate_of.tolist() == [-1, -1, 0, -1] and list(index.reason) == [None, None, EXACT, None]
    assert index.similarity[2] == 1 and np.isnan(index.similarity[[0, 1, 3]]).all()
    assert metrics == {"rows": 4, "kept": 3, "removed": {EXACT: 1}}


def test_nothing_is_removed_unless_asked(tmp_path: Path) -> None:
    found = dedupe(tmp_path, [("train", [[5], [5]]), ("test", [[5]])], {})
    assert found.index.keep.all() and found.metrics["removed"] == {} and not found.said


def test_an_answer_of_a_pair_makes_the_difference(tmp_path: Path) -> None:
    rejected = [[[7], [8], [7]]]
    found = dedupe(tmp_path, [("train", [[5], [5], [5]])], {"dataset_exact_deduplication": True}, rejected=rejected)
    assert found.kept == {(0, 0), (0, 1)}


def test_the_index_does_not_depend_on_where_rows_stand(tmp_path: Path) -> None:
    sources = [("train", [[1], [2], [1]]), ("train", [[2], [3]]), ("test", [[3], [3]])]
    expected = {(0, 2): (0, 0), (1, 0): (0, 1), (1, 1): (2, 0), (2, 1): (2, 0)}
    for number, order in enumerate([range(7), [6, 5, 4, 3, 2, 1, 0], [2, 6, 0, 4, 1, 5, 3]]):
        found = dedupe(tmp_path / str(number), sources, {"dataset_exact_deduplication": True}, order=list(order))
        assert {key: other for key, (_, other, _) in found.removed.items()} == expected


@settings(deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=40))
def test_every_content_stays_once_and_on_the_evaluation_side_if_it_is_there(rows: list[tuple[int, bool]]) -> None:
    content = digests([[value] for value, _ in rows])
    evaluation = np.asarray([is_evaluation for _, is_evaluation in rows], bool)
    index = KeptRows.all_of(len(rows))
    remove_duplicates(index, content, np.concatenate([np.flatnonzero(evaluation), np.flatnonzero(~evaluation)]))
    kept = [rows[i] for i in np.flatnonzero(index.keep)]
    assert sorted(value for value, _ in kept) == sorted({value for value, _ in rows})
    assert {value for value, evaluated in kept if evaluated} == {value for value, evaluated in rows if evaluated}
    for row in np.flatnonzero(~index.keep):
        assert index.keep[index.duplicate_of[row]] and (content[index.duplicate_of[row]] == content[row]).all()


def test_rows_that_share_half_a_digest_are_different() -> None:
    content = np.asarray([[1, 2], [1, 3], [1, 2], [1, 3]], np.uint64)
    index = KeptRows.all_of(4)
    remove_duplicates(index, content, np.arange(4))
    assert index.duplicate_of.tolist() == [-1, -1, 0, 1]


def test_an_empty_artifact_has_an_empty_index(tmp_path: Path) -> None:
    publish_sources(tmp_path / "data", [("train", [])])
    run_stage(STAGE, tmp_path, {"dataset_exact_deduplication": True, "dedupe": {"near": {}}})
    assert len(KeptRows.load(tmp_path / "data/dedupe/index.arrow").keep) == 0

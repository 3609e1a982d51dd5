"""pack: every row once, no bin over capacity, near the optimum, and a digest that depends on content alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.artifact import open_artifact
from pipeline.bins import Bins
from pipeline.errors import RegrowError
from pipeline.kept import EXACT, KeptRows
from pipeline.tokens import TokenTable
from stages.eval.rows import load_rows
from stages.pack import STAGE
from stages.pack.best_fit import best_fit_decreasing
from stages.pack.next_fit import next_fit
from tests.tiny import publish_artifact, publish_tokens, run_stage


def row_level_best_fit(lengths: Sequence[int], capacity: int) -> list[int]:
    """The textbook algorithm, row by row; free space of each bin."""
    free: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [space for space in free if space >= length]
        if fitting:
            free[free.index(min(fitting))] -= length
        else:
            free.append(capacity - length)
    return free


@settings(deadline=None, derandomize=True)
@given(st.integers(1, 60).flatmap(lambda capacity: st.tuples(st.just(capacity), st.lists(st.integers(1, capacity), max_size=80))))
def test_best_fit_over_classes_equals_best_fit_row_by_row(case: tuple[int, list[int]]) -> None:
    capacity, lengths = case
    bins = best_fit_decreasing(np.array(lengths, np.int64), capacity)
    filled = np.bincount(bins, weights=lengths) if lengths else np.zeros(0)
    assert (filled <= capacity).all() and (filled > 0).all()
    assert sorted(capacity - filled) == sorted(row_level_best_fit(lengths, capacity))


@settings(deadline=None, derandomize=True)
@given(st.integers(1, 60).flatmap(lambda capacity: st.tuples(st.just(capacity), st.lists(st.integers(1, capacity), max_size=80))))
def test_next_fit_opens_a_bin_only_where_the_next_row_has_no_room(case: tuple[int, list[int]]) -> None:
    capacity, lengths = case
    bins = next_fit(np.array(lengths, np.int64), capacity)
    expected: list[int] = []
    room, opened = 0, -1
    for length in lengths:
        if length > room:
            room, opened = capacity, opened + 1
        room -= length
        expected.append(opened)
    assert bins.tolist() == expected


def plan(workspace: Path, lengths: Sequence[int], kind: str = "chat_template", **options: Any) -> tuple[Bins, Bins, dict[str, Any]]:
    """Rows of which the last token is trained, or of running text all of them."""
    masked = 0 if kind == "chat_template" else 1
    tokens = [([3 + i % 250] * length, [masked] * (length - 1) + [1]) for i, length in enumerate(lengths)]
    publish_tokens(workspace / "data", tokens, kind=kind)
    publish_artifact(workspace / "data", "dedupe", lambda folder: KeptRows.all_of(len(lengths)).save(folder / "index.arrow"))
    run_stage(STAGE, workspace, options)
    packed = workspace / "data" / "packed"
    return Bins.load(packed / "train.arrow"), Bins.load(packed / "eval.arrow"), dict(open_artifact(packed).content)


def test_packs_every_row_once_within_capacity(tmp_path: Path) -> None:
    lengths = np.random.default_rng(0).gamma(2, 6, 500).astype(int).clip(2, 60).tolist()
    train, evaluation, content = plan(tmp_path, lengths, sequence_len=64, sample_packing=True, val_set_size=50)
    assert sorted([*train.row, *evaluation.row]) == list(range(500)) and len(evaluation) == 50
    per_bin = np.add.reduceat(train.length, train.offsets[:-1])
    assert per_bin.max() <= 64 and per_bin.sum() == sum(lengths) - evaluation.length.sum()
    assert content["train"]["bins"] == len(train) <= content["train"]["lower_bound_bins"] * 1.02
    assert content["train"]["trained_tokens"] == 450


def test_sequential_packing_keeps_the_order_of_the_rows(tmp_path: Path) -> None:
    lengths = [5, 4, 3, 6, 1, 9, 2]
    options: dict[str, Any] = {
        "sequence_len": 10,
        "sample_packing": True,
        "sample_packing_sequentially": True,
        "shuffle_merged_datasets": False,
    }
    train, _, _ = plan(tmp_path, lengths, min_sample_len=1, **options)
    assert train.row.tolist() == list(range(7)) and train.offsets.tolist() == [0, 2, 5, 6, 7]


def test_packed_held_out_rows_are_the_same_rows_in_the_same_order(tmp_path: Path) -> None:
    lengths = np.random.default_rng(1).integers(2, 30, 80).tolist()
    apart, packed = (
        plan(tmp_path / str(value), lengths, sequence_len=32, val_set_size=40, eval_sample_packing=value) for value in (False, True)
    )
    rows = [
        load_rows(TokenTable(tmp_path / str(value) / "data/tokens"), bins)[0] for value, (_, bins, _) in ((False, apart), (True, packed))
    ]
    assert [(row.row, row.ids.tolist()) for row in rows[0]] == [(row.row, row.ids.tolist()) for row in rows[1]]
    per_bin = np.add.reduceat(packed[1].length, packed[1].offsets[:-1])
    assert len(apart[1]) == 40 > len(packed[1]) and per_bin.max() <= 32
    assert packed[2]["eval"]["rows"] == 40 and packed[0].row.tolist() == apart[0].row.tolist(), "training is as it was"


def test_split_and_order_depend_on_the_seed_alone(tmp_path: Path) -> None:
    first, again, other = (plan(tmp_path / name, [5] * 40, seed=seed, val_set_size=0.25) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert first[0].row.tolist() == again[0].row.tolist() != other[0].row.tolist()
    assert len(first[1]) == 10
    assert first[2]["content_digest"] == again[2]["content_digest"] != other[2]["content_digest"]


def test_unshuffled_rows_keep_their_order_and_the_split_takes_the_tail(tmp_path: Path) -> None:
    train, evaluation, _ = plan(tmp_path, [4] * 10, shuffle_merged_datasets=False, val_set_size=3)
    assert train.row.tolist() == list(range(7)) and evaluation.row.tolist() == [7, 8, 9]


@pytest.mark.parametrize(("strategy", "kept", "tokens"), [("drop", 2, 8), ("truncate", 2, 8)])
def test_rows_longer_than_sequence_len(tmp_path: Path, strategy: str, kept: int, tokens: int) -> None:
    train, _, content = plan(tmp_path, [3, 5, 9], sequence_len=6, excess_length_strategy=strategy)
    # The mask of the tests trains the last token only, so what truncation leaves of the long row trains nothing.
    assert (len(train.row), int(train.length.sum())) == (kept, tokens)
    assert sum(content["dropped"].values()) == 1


def test_truncation_keeps_a_row_that_still_trains(tmp_path: Path) -> None:
    publish_tokens(tmp_path / "data", [([3] * 9, [1] * 9)])
    publish_artifact(tmp_path / "data", "dedupe", lambda folder: KeptRows.all_of(1).save(folder / "index.arrow"))
    run_stage(STAGE, tmp_path, {"sequence_len": 6, "excess_length_strategy": "truncate"})
    content = open_artifact(tmp_path / "data/packed").content
    assert content["truncated"] == {"rows": 1, "tokens": 3} and content["train"]["tokens"] == 6


def test_raise_names_the_row_and_a_length_that_works(tmp_path: Path) -> None:
    with pytest.raises(RegrowError, match=r"row 2 of rows.jsonl .* 9 tokens[\s\S]*sequence_len to 9"):
        plan(tmp_path, [3, 5, 9], sequence_len=6, excess_length_strategy="raise")


def test_removed_and_short_rows_are_left_out(tmp_path: Path) -> None:
    publish_tokens(tmp_path / "data", [([3], [1]), ([3, 4], [1, 1]), ([3, 4], [1, 1])])
    index = KeptRows.all_of(3)
    index.remove(np.array([2]), EXACT, 1, 1.0)
    publish_artifact(tmp_path / "data", "dedupe", lambda folder: index.save(folder / "index.arrow"))
    run_stage(STAGE, tmp_path)
    assert Bins.load(tmp_path / "data/packed/train.arrow").row.tolist() == [1]
    assert open_artifact(tmp_path / "data/packed").content["dropped"] == {"shorter than min_sample_len 2": 1}


def test_a_floor_for_efficiency(tmp_path: Path) -> None:
    with pytest.raises(RegrowError, match=r"fills 0\.0500 .* asks for 0\.9"):
        plan(tmp_path, [5] * 4, sequence_len=100, pack={"minimum_efficiency": 0.9})


@pytest.mark.parametrize("size", [4, 900, 0.01])
def test_a_split_that_leaves_one_side_empty_is_refused(tmp_path: Path, size: float) -> None:
    with pytest.raises(RegrowError, match="val_set_size"):
        plan(tmp_path, [5] * 4, val_set_size=size)


def test_the_digest_sees_tokens_masks_and_borders_and_no_layout(tmp_path: Path) -> None:
    rows = [([3, 4], [0, 1]), ([5, 6, 7], [1, 1, 1])]
    publish_tokens(tmp_path / "a" / "data", rows)
    publish_tokens(tmp_path / "b" / "data", rows, vocab_size=100_000)
    publish_tokens(tmp_path / "c" / "data", [([3, 4], [1, 1]), ([5, 6, 7], [1, 1, 1])])
    narrow, wide, masked = (TokenTable(tmp_path / name / "data" / "tokens") for name in "abc")
    together = Bins(np.array([0, 2]), np.array([0, 1]), np.zeros(2, np.int32), np.array([2, 3], np.int32))
    apart = Bins(np.array([0, 1, 2]), together.row, together.start, together.length)
    assert together.content_digest(narrow) == together.content_digest(wide)
    assert len({together.content_digest(narrow), apart.content_digest(narrow), together.content_digest(masked)}) == 3


@settings(deadline=None, derandomize=True, max_examples=25)
@given(lengths=st.lists(st.integers(2, 90), min_size=4, max_size=30), packed=st.booleans(), held_out=st.sampled_from([0.0, 2.0]))
def test_running_text_longer_than_a_sequence_goes_on_in_the_next(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], packed: bool, held_out: float
) -> None:
    settings_ = {"sequence_len": 16, "min_sample_len": 1, "sample_packing": packed, "val_set_size": held_out}
    train, evaluation, content = plan(tmp_path_factory.mktemp("text"), lengths, "completion", **settings_)
    assert not set(train.row) & set(evaluation.row)
    placed = {row: np.zeros(length, int) for row, length in enumerate(lengths)}
    for bins in (train, evaluation):
        for row, start, length in zip(bins.row, bins.start, bins.length, strict=True):
            assert 0 < length <= 16 and start % 16 == 0
            placed[int(row)][start : start + length] += 1
    assert all((counts == 1).all() for counts in placed.values())
    assert content["truncated"] == {"rows": 0, "tokens": 0}


def test_a_leftover_that_is_too_short_is_left_out_and_order_is_kept(tmp_path: Path) -> None:
    train, _, _ = plan(tmp_path, [17, 8, 40], "completion", sequence_len=16, shuffle_merged_datasets=False)
    assert list(zip(train.row, train.start, train.length, strict=True)) == [(0, 0, 16), (1, 0, 8), (2, 0, 16), (2, 16, 16), (2, 32, 8)]

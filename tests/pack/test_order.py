"""In which order rows are packed, which part of them, and how long held-out rows may be."""

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
from pipeline.kept import KeptRows
from pipeline.tokens import TokenTable, TokenWriter
from stages.pack import STAGE
from tests.tiny import publish_artifact, run_stage

ROWS = [("train", [5, 4, 3, 6]), ("train", [7, 2, 9]), ("test", [4, 12])]
"""Lengths of the rows of three sources."""


def pack(workspace: Path, sources: Sequence[tuple[str, Sequence[int]]] = ROWS, **options: Any) -> tuple[Bins, Bins, dict[str, Any]]:
    def fill(folder: Path) -> None:
        with TokenWriter(folder, np.dtype(np.uint16)) as writer:
            for number, (_, lengths) in enumerate(sources):
                for row, length in enumerate(lengths):
                    writer.add(np.full(length, 3), np.ones(length, np.uint8), number, row)

    facts = [{"name": f"{split}-00", "split": split, "path": "a", "file": "a", "type": "chat_template"} for split, _ in sources]
    publish_artifact(workspace / "data", "tokens", fill, sources=facts)
    total = sum(len(lengths) for _, lengths in sources)
    publish_artifact(workspace / "data", "dedupe", lambda folder: KeptRows.all_of(total).save(folder / "index.arrow"))
    run_stage(STAGE, workspace, {"sequence_len": 10} | options)
    packed = workspace / "data" / "packed"
    return Bins.load(packed / "train.arrow"), Bins.load(packed / "eval.arrow"), dict(open_artifact(packed).content)


def test_a_curriculum_keeps_the_order_of_rows_even_in_packed_bins(tmp_path: Path) -> None:
    train, _, _ = pack(tmp_path, curriculum_sampling=True, sample_packing=True)
    assert train.row.tolist() == list(range(7))
    assert np.add.reduceat(train.length, train.offsets[:-1]).tolist() == [9, 9, 9, 9]
    alone, _, _ = pack(tmp_path / "alone", curriculum_sampling=True)
    assert alone.row.tolist() == list(range(7)) and len(alone) == 7


def test_rows_are_shuffled_within_each_dataset_and_datasets_keep_their_order(tmp_path: Path) -> None:
    options = {"shuffle_merged_datasets": False, "shuffle_before_merging_datasets": True}
    sources = [("train", [5] * 30), ("train", [5] * 30)]
    first, again, other = (pack(tmp_path / name, sources, **options, seed=seed)[0].row for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert first.tolist() == again.tolist() != other.tolist()
    for rows in (first, other):
        assert sorted(rows[:30]) == list(range(30)) and sorted(rows[30:]) == list(range(30, 60))
        assert rows[:30].tolist() != list(range(30)) and rows[30:].tolist() != list(range(30, 60))


@settings(deadline=None, derandomize=True, max_examples=15)
@given(st.integers(1, 4), st.booleans())
def test_shards_are_all_rows_and_share_none(tmp_path_factory: pytest.TempPathFactory, shards: int, shuffled: bool) -> None:
    workspace = tmp_path_factory.mktemp("shards")
    sources = [("train", [5] * 11), ("train", [6] * 4)]
    options = {"dataset_shard_num": shards, "shuffle_merged_datasets": shuffled}
    parts = [pack(workspace / str(index), sources, **options, dataset_shard_idx=index)[0].row.tolist() for index in range(shards)]
    assert sorted(row for part in parts for row in part) == list(range(15))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    whole = pack(workspace / "whole", sources, shuffle_merged_datasets=shuffled)[0].row.tolist()
    assert [row for part in parts for row in part] == whole


def test_the_first_shard_is_the_default_and_test_rows_are_in_every_one(tmp_path: Path) -> None:
    first: tuple[dict[str, Any], ...] = ({"dataset_shard_idx": 0}, {})
    named, unnamed = (pack(tmp_path / str(at), dataset_shard_num=2, **more) for at, more in enumerate(first))
    assert named[0].row.tolist() == unnamed[0].row.tolist() and len(named[0].row) == 4
    second = pack(tmp_path / "2", dataset_shard_num=2, dataset_shard_idx=1)
    assert second[1].row.tolist() == named[1].row.tolist() == [7]


def test_a_shard_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RegrowError, match="No training row"):
        pack(tmp_path, [("train", [5])], dataset_shard_num=2, dataset_shard_idx=1)


def test_held_out_rows_may_have_a_length_of_their_own(tmp_path: Path) -> None:
    _, short, facts = pack(tmp_path / "short")
    assert short.row.tolist() == [7] and facts["dropped"] == {"longer than sequence_len 10": 1}
    train, long, facts = pack(tmp_path / "long", eval_sequence_len=16)
    assert long.row.tolist() == [7, 8] and facts["dropped"] == {} and len(train.row) == 7
    assert facts["eval"]["efficiency"] == 0.5  # 16 of 2 bins of 16
    _, none, facts = pack(tmp_path / "packed", eval_sequence_len=16, eval_sample_packing=True)
    assert len(none) == 1 and none.length.tolist() == [4, 12]
    _, cut, facts = pack(tmp_path / "cut", eval_sequence_len=3, excess_length_strategy="truncate")
    assert cut.length.tolist() == [3, 3] and facts["truncated"] == {"rows": 2, "tokens": 10}


def paired(workspace: Path, rows: Sequence[tuple[list[int], list[int]]], **options: Any) -> tuple[Bins, dict[str, Any]]:
    """Rows with two answers from the masks of both."""

    def fill(folder: Path) -> None:
        with TokenWriter(folder, np.dtype(np.uint16)) as writer:
            for number, (chosen, rejected) in enumerate(rows):
                ids = np.full(len(chosen), 3), np.full(len(rejected), 4)
                writer.add(ids[0], np.asarray(chosen), 0, number, rejected=(ids[1], np.asarray(rejected)))

    source = {"name": "train-00", "split": "train", "path": "a", "file": "a", "type": "chatml.intel"}
    publish_artifact(workspace / "data", "tokens", fill, sources=[source])
    publish_artifact(workspace / "data", "dedupe", lambda folder: KeptRows.all_of(len(rows)).save(folder / "index.arrow"))
    run_stage(STAGE, workspace, {"sequence_len": 4, "shuffle_merged_datasets": False} | options)
    return Bins.load(workspace / "data/packed/train.arrow"), dict(open_artifact(workspace / "data/packed").content)


PAIRS = [([0, 1, 1], [0, 1, 1, 1]), ([0, 1], [0, 1, 1, 1, 1]), ([0, 1, 1, 1, 1, 1], [0, 0, 0, 0, 1]), ([0, 1], [0, 1])]


def test_a_pair_is_as_long_as_its_longer_answer(tmp_path: Path) -> None:
    train, facts = paired(tmp_path, PAIRS)
    assert train.row.tolist() == [0, 3] and train.length.tolist() == [4, 2]
    assert facts["dropped"] == {"longer than sequence_len 4": 2}
    assert facts["train"]["trained_tokens"] == 3


def test_a_pair_is_cut_only_where_both_answers_still_train(tmp_path: Path) -> None:
    train, facts = paired(tmp_path, PAIRS, excess_length_strategy="truncate")
    assert train.row.tolist() == [0, 1, 3] and train.length.tolist() == [4, 4, 2]
    assert facts["dropped"] == {"nothing trained within sequence_len": 1}


def test_the_digest_sees_both_answers_and_labels(tmp_path: Path) -> None:
    def digest(name: str, **parts: Any) -> str:
        def fill(folder: Path) -> None:
            with TokenWriter(folder, np.dtype(np.uint16)) as writer:
                writer.add(np.array([3, 4]), np.array([0, 1]), 0, 0, **parts)

        publish_artifact(tmp_path / name, "tokens", fill)
        whole = Bins(np.array([0, 1]), np.array([0]), np.zeros(1, np.int32), np.array([2], np.int32))
        return whole.content_digest(TokenTable(tmp_path / name / "tokens"))

    answers = [(np.array([3, second]), np.array([0, mask])) for second, mask in ((5, 1), (6, 1), (5, 0))]
    made = [digest("none"), *(digest(f"a{at}", rejected=answer) for at, answer in enumerate(answers))]
    made += [digest(f"l{value}", labels=np.array([value])) for value in (0, 1)]
    assert len(set(made)) == 6


@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.lists(st.lists(st.booleans(), max_size=9), min_size=1, max_size=8), st.data())
def test_trained_tokens_of_any_stretch(tmp_path_factory: pytest.TempPathFactory, masks: list[list[bool]], data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("tokens")
    with TokenWriter(folder, np.dtype(np.uint16)) as writer:
        for number, mask in enumerate(masks):
            writer.add(np.zeros(len(mask)), np.asarray(mask, np.uint8), 0, number)
    table = TokenTable(folder)
    assert table.trained.tolist() == [sum(mask) for mask in masks]
    rows = data.draw(st.lists(st.integers(0, len(masks) - 1), max_size=6))
    starts = [data.draw(st.integers(0, len(masks[row]))) for row in rows]
    sizes = [data.draw(st.integers(0, len(masks[row]) - start)) for row, start in zip(rows, starts, strict=True)]
    found = table.count_trained(np.asarray(rows, np.int64), np.asarray(starts, np.int64), np.asarray(sizes, np.int64))
    expected = [sum(masks[row][start : start + size]) for row, start, size in zip(rows, starts, sizes, strict=True)]
    assert found.tolist() == expected

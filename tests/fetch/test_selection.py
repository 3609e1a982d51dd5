"""Splits, slices, random parts and streams take the rows that the `datasets` library takes, each with its number at the source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import RegrowError
from pipeline.splits import Slice, parse_split
from tests.fetch.rows import fetch_rows, write_arrow, write_lines, write_parquet


def rows(count: int, first: int = 0) -> list[dict[str, int]]:
    return [{"n": number} for number in range(first, first + count)]


BOUNDS = st.none() | st.integers(-130, 130)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(BOUNDS, BOUNDS, st.booleans(), st.booleans()), min_size=1, max_size=3), st.integers(0, 250))
def test_slices_are_those_of_datasets(slices: list[tuple[int | None, int | None, bool, bool]], total: int) -> None:
    from datasets import ReadInstruction

    text = "+".join(
        f"train[{_bound(start, percent)}:{_bound(stop, percent)}]{'(pct1_dropremainder)' if percent and whole else ''}"
        for start, stop, percent, whole in slices
    )
    try:
        theirs = [(item.from_, item.to) for item in ReadInstruction.from_spec(text).to_absolute({"train": total})]
    except (AssertionError, ValueError):
        theirs = None  # beyond 100 percent, two roundings in one, or whole hundredths of less than 100 rows
    try:
        ours = [item.bounds(total) for item in parse_split(text)]
    except RegrowError:
        assert theirs is None
        return
    if theirs is not None:
        assert [range(*bounds) for bounds in ours] == [range(*bounds) for bounds in theirs]


def _bound(value: int | None, percent: bool) -> str:
    return "" if value is None else f"{value}{'%' * percent}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "train[5]",
        "train[_:5]",
        "train[1__0:]",
        f"train[:{'9' * 5000}]",
        "train[:x]",
        "train[1:2:3]",
        "train+",
        "a-b",
        "train[:101%]",
        "train[:5](closest)",
        "t(up)",
    ],
)
def test_what_is_no_split_is_refused(text: str) -> None:
    with pytest.raises(RegrowError):
        parse_split(text)


def test_names_of_splits_hold_dots() -> None:
    assert parse_split("test.v1[1_0:]") == (Slice("test.v1", 10),)


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet", "arrow", "csv", "txt"])
def test_a_slice_keeps_the_numbers_of_its_rows(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"rows.{kind}"
    write: dict[str, Any] = {
        "jsonl": lambda: path.write_text("".join(f'{{"n": {i}}}\n' + "\n" * (i == 3) for i in range(10))),
        "json": lambda: path.write_text(json.dumps(rows(10))),
        "parquet": lambda: write_parquet(path, rows(10)),
        "arrow": lambda: write_arrow(path, rows(10)),
        "csv": lambda: path.write_text("n\n" + "".join(f"{i}\n" for i in range(10))),
        "txt": lambda: path.write_text("".join(f"{i}\n" for i in range(10))),
    }
    write[kind]()
    fetched = fetch_rows(tmp_path, path, split="train[2:5] + train[-10%:]")
    values = [row.get("n", row.get("text")) for row in fetched.rows]
    assert list(map(int, values)) == [2, 3, 4, 9]
    shift = int(kind == "jsonl")  # a blank line is no row, and has a number
    assert fetched.numbers == [[2, 3, 4 + shift], [9 + shift]]
    assert [source["rows_file"] for source in fetched.sources] == ["train-00/00000.jsonl", "train-00/00001.jsonl"]


def test_a_slice_goes_over_the_files_of_its_split(tmp_path: Path) -> None:
    for name, first in (("train-1.jsonl", 0), ("train-2.jsonl", 10), ("train-3.jsonl", 20)):
        write_lines(tmp_path / "data" / name, rows(10, first))
    fetched = fetch_rows(tmp_path, tmp_path / "data", split="train[5:12]")
    assert fetched.files == ["train-1.jsonl", "train-2.jsonl"]
    assert fetched.numbers == [[5, 6, 7, 8, 9], [0, 1]]
    assert [row["n"] for row in fetched.rows] == list(range(5, 12))


def test_a_selection_of_nothing_is_refused(tmp_path: Path) -> None:
    write_lines(tmp_path / "rows.jsonl", rows(3))
    with pytest.raises(RegrowError, match=r"datasets\[0\]\.path '\./rows\.jsonl' holds no rows that split 'train\[5:\]' would take"):
        fetch_rows(tmp_path, tmp_path / "rows.jsonl", split="train[5:]")
    with pytest.raises(RegrowError, match=r"datasets\[0\]\.split: there is no split 'test'\.\n  There are train"):
        fetch_rows(tmp_path, tmp_path / "rows.jsonl", split="test")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 60), st.data(), st.integers(0, 99), st.sampled_from([None, 0.1, 0.5, 0.99]))
def test_random_parts_hold_the_rows_that_datasets_draws(
    tmp_path: Path, total: int, data: st.DataObject, seed: int, weight: float | None
) -> None:
    from datasets import Dataset

    shards = data.draw(st.integers(1, min(total, 5)))
    index = data.draw(st.integers(0, shards - 1))
    expected = Dataset.from_dict({"n": range(total)})
    if shards > 1:
        expected = expected.shuffle(seed=seed, keep_in_memory=True).shard(shards, index)
    if weight is not None:
        expected = expected.shuffle(seed=seed, keep_in_memory=True).select(range(max(1, int(len(expected) * weight))))
    for name, part in (("a", rows(total // 3)), ("b", rows(total - total // 3, total // 3))):
        write_lines(tmp_path / "data" / f"{name}.jsonl", part)
    selection = {"shards": shards, "shards_idx": index, "weight": weight, "more": {"rows_seed": seed}}
    fetched = fetch_rows(tmp_path, tmp_path / "data", **selection)
    assert [row["n"] for row in fetched.rows] == sorted(expected["n"])
    if fetched.numbers != [None] * len(fetched.numbers):
        starts = {"a.jsonl": 0, "b.jsonl": total // 3}
        named = [starts[file] + number for file, numbers in zip(fetched.files, fetched.numbers, strict=True) for number in numbers or []]
        assert named == sorted(expected["n"])


def test_more_parts_than_rows_leave_some_empty(tmp_path: Path) -> None:
    write_lines(tmp_path / "rows.jsonl", rows(2))
    with pytest.raises(RegrowError, match="holds no rows that shards 3 would take"):
        fetch_rows(tmp_path, tmp_path / "rows.jsonl", shards=3, shards_idx=2, more={"rows_seed": 1})


def test_the_parts_of_a_split_are_all_of_it_once(tmp_path: Path) -> None:
    write_lines(tmp_path / "rows.jsonl", rows(23))
    parts = [
        fetch_rows(tmp_path, tmp_path / "rows.jsonl", split="train[1:]", shards=4, shards_idx=index, more={"rows_seed": 7}).rows
        for index in range(4)
    ]
    assert [len(part) for part in parts] == [6, 6, 5, 5]
    assert sorted(row["n"] for part in parts for row in part) == list(range(1, 23))


def test_a_stream_ends_where_max_steps_can_take_no_more(tmp_path: Path) -> None:
    for name, first in (("a", 0), ("b", 100), ("c", 200)):
        write_lines(tmp_path / "data" / f"{name}.jsonl", [{"n": f"{number:03d}"} for number in range(first, first + 100)])
    line = len('{"n":"000"}')
    fetched = fetch_rows(tmp_path, tmp_path / "data", skip=30, more={"stream_bytes": 120 * line})
    assert [int(row["n"]) for row in fetched.rows] == list(range(30, 150))
    assert fetched.files == ["a.jsonl", "b.jsonl"]
    assert fetched.numbers == [list(range(30, 100)), list(range(50))]
    assert any(f"took the first 120 rows, {120 * line} bytes: max_steps" in text for text in fetched.said)
    capped = fetch_rows(tmp_path, tmp_path / "data", more={"stream_bytes": 100, "stream_row_bytes": 2})
    assert len(capped.rows) == 50
    whole = fetch_rows(tmp_path, tmp_path / "data", more={"stream_bytes": 10**6})
    assert len(whole.rows) == 300 and any("took all 300 rows; max_steps may go over them more than once" in text for text in whole.said)


def test_skipped_rows_may_fill_whole_files(tmp_path: Path) -> None:
    for name, first in (("a", 0), ("b", 10)):
        write_lines(tmp_path / "data" / f"{name}.jsonl", rows(10, first))
    fetched = fetch_rows(tmp_path, tmp_path / "data", skip=13)
    assert fetched.numbers == [list(range(3, 10))] and fetched.files == ["b.jsonl"]

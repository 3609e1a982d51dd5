"""Which files make which split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import RegrowError
from tests.fetch.made import write
from tests.fetch.rows import Fetched, fetch_rows, write_lines, write_parquet


def folder(tmp_path: Path, *names: str, **texts: str) -> Path:
    """A folder of one-row files whose row is their name."""
    root = tmp_path / "corpus"
    for name in names:
        row = {"n": name}
        _ = write_parquet(root / name, [row]) if name.endswith(".parquet") else write_lines(root / name, [row])
    for name, text in texts.items():
        write(root / name.replace("__", "."), text)
    return root


def names(fetched: Fetched) -> list[str]:
    return [row["n"] for row in fetched.rows]


@pytest.mark.parametrize(
    ("files", "split", "expected"),
    [
        (("data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "data/dpo.v2-00000-of-00001.parquet"), "dpo.v2", [2]),
        (("data/train-00000-of-00001-9ab.parquet", "data/test-00000-of-00001.parquet", "train/old.parquet"), None, [0]),
        (("train/a.jsonl", "validation/train.jsonl", "b.jsonl"), "validation", [1]),
        (("my-training_set.jsonl", "dev.jsonl", "evaluation.jsonl"), None, [0]),
        (("my-training_set.jsonl", "dev.jsonl", "evaluation.jsonl"), "validation+test", [1, 2]),
        (("x/train.jsonl", "x/test.jsonl"), "all", [0, 1]),
        (("constraint.jsonl", "contest.jsonl"), None, [0, 1]),
        (("train_test_split/a.jsonl", "b.jsonl"), None, [1, 0]),
        (("rows.jsonl", ".hidden.jsonl", "__pycache__/x.jsonl", "dataset_infos.json", "config.json"), None, [0]),
    ],
)
def test_names_tell_splits(tmp_path: Path, files: tuple[str, ...], split: str | None, expected: list[int]) -> None:
    fetched = fetch_rows(tmp_path, folder(tmp_path, *files), split=split)
    assert names(fetched) == [files[index] for index in expected]


def test_the_files_left_out_are_named(tmp_path: Path) -> None:
    fetched = fetch_rows(tmp_path, folder(tmp_path, "train.jsonl", "test.jsonl"))
    assert fetched.said == ["datasets[0]: training on train.jsonl and not on test.jsonl; split or data_files choose otherwise."]


def test_one_format_is_taken_and_ds_type_chooses_another(tmp_path: Path) -> None:
    root = folder(tmp_path, "a.parquet", "b.parquet", "a.jsonl", notes__txt="n")
    fetched = fetch_rows(tmp_path, root)
    assert names(fetched) == ["a.parquet", "b.parquet"] and "not on a.jsonl, notes.txt" in fetched.said[0]
    assert names(fetch_rows(tmp_path, root, ds_type="json")) == ["a.jsonl"]


def test_evaluation_takes_the_test_split_or_what_is_not_told_apart(tmp_path: Path) -> None:
    assert names(fetch_rows(tmp_path, folder(tmp_path / "1", "train.jsonl", "test.jsonl"), role="test")) == ["test.jsonl"]
    assert names(fetch_rows(tmp_path, folder(tmp_path / "2", "a.jsonl", "b.jsonl"), role="test")) == ["a.jsonl", "b.jsonl"]
    with pytest.raises(RegrowError, match=r"test_datasets\[0\].*has the splits train, validation and no test.*\n.*split"):
        fetch_rows(tmp_path, folder(tmp_path / "3", "train.jsonl", "valid.jsonl"), role="test")
    with pytest.raises(RegrowError, match=r"datasets\[0\].*has the splits test and no train"):
        fetch_rows(tmp_path, folder(tmp_path / "5", "test.jsonl"))
    assert names(fetch_rows(tmp_path, folder(tmp_path / "6", "test.jsonl") / "test.jsonl")) == ["test.jsonl"]
    with pytest.raises(RegrowError, match=r"datasets\[0\].*has the splits test and no train"):
        fetch_rows(tmp_path, folder(tmp_path / "4", "test.jsonl", "more_test.jsonl"))


def test_data_files_are_taken_in_their_order(tmp_path: Path) -> None:
    root = folder(tmp_path, "test.jsonl", "x/train.jsonl", "x/y/train.jsonl")
    assert names(fetch_rows(tmp_path, root, data_files=["x/*.jsonl", "test.jsonl"])) == ["x/train.jsonl", "test.jsonl"]
    assert names(fetch_rows(tmp_path, root, data_files="**/*.jsonl")) == ["test.jsonl", "x/train.jsonl", "x/y/train.jsonl"]
    assert names(fetch_rows(tmp_path, root, data_files="x/")) == ["x/train.jsonl", "x/y/train.jsonl"]
    assert names(fetch_rows(tmp_path, root, data_files="./corpus/test.jsonl")) == ["test.jsonl"]
    assert names(fetch_rows(tmp_path, root, data_files="**/[!t]*/train.jsonl")) == ["x/train.jsonl", "x/y/train.jsonl"]
    write_lines(root / "x" / "[!t].jsonl", [{"n": "itself"}])
    assert names(fetch_rows(tmp_path, root, data_files="x/[!t].jsonl")) == ["itself"]
    for odd in ("[1.jsonl", "[]x]"):
        write_lines(root / odd, [{"n": odd}])
        assert names(fetch_rows(tmp_path, root, data_files=f"**/{odd}", ds_type="json")) == [odd]
    with pytest.raises(RegrowError, match=r"datasets\[0\]\.data_files: '\[z-a\]' is no pattern"):
        fetch_rows(tmp_path, root, data_files="[z-a]")
    with pytest.raises(RegrowError, match=r"datasets\[0\]\.data_files: no file matches 'c\*'.*\n.*test\.jsonl"):
        fetch_rows(tmp_path, root, data_files=["c*"])


CARD = """---
license: mit
configs:
- config_name: en
  default: {default}
  data_files:
  - split: train
    path: [en/a.jsonl, "en/b*.jsonl"]
  - split: held_out
    path: en/test.jsonl
- config_name: de
  data_files: de/*.jsonl
- config_name: plain
  data_dir: plain
---
# Rows
"""
FILES = ("en/a.jsonl", "en/b1.jsonl", "en/test.jsonl", "de/test.jsonl", "plain/train.jsonl", "plain/test.jsonl")


def test_configurations_of_a_readme(tmp_path: Path) -> None:
    root = folder(tmp_path, *FILES, README__md=CARD.format(default="true"))
    assert names(fetch_rows(tmp_path, root)) == ["en/a.jsonl", "en/b1.jsonl"]
    assert names(fetch_rows(tmp_path, root, split="held_out")) == ["en/test.jsonl"]
    assert names(fetch_rows(tmp_path, root, name=["de", "plain"])) == ["de/test.jsonl", "plain/train.jsonl"]
    (root / "README.md").write_text(CARD.format(default="false"))
    with pytest.raises(RegrowError, match=r"has several configurations.*\n.*en, de, plain"):
        fetch_rows(tmp_path, root)
    with pytest.raises(RegrowError, match=r"has no configuration 'fr'.*\n.*en, de, plain"):
        fetch_rows(tmp_path, root, name="fr")
    (root / "README.md").write_text(CARD.format(default="true\n  sep: ';'"))
    with pytest.raises(RegrowError, match=r"its README\.md sets sep for reading the files.*\n.*refs/convert/parquet"):
        fetch_rows(tmp_path, root)


def test_folders_are_configurations_where_no_readme_says_otherwise(tmp_path: Path) -> None:
    root = folder(tmp_path, "en/train/0000.parquet", "en/test/0000.parquet", "de/train/0000.parquet")
    assert names(fetch_rows(tmp_path, root, name=["de", "en"], split="train[:1]")) == ["de/train/0000.parquet", "en/train/0000.parquet"]
    with pytest.raises(RegrowError, match=r"has no configuration 'fr'"):
        fetch_rows(tmp_path, root, name="fr")
    with pytest.raises(RegrowError, match=r"datasets\[0\]\.name is 'en'.*is no folder"):
        fetch_rows(tmp_path, root / "en" / "train" / "0000.parquet", name="en")


def saved(folder: Path, **splits: list[dict[str, Any]]) -> Path:
    """What ``save_to_disk`` of the library writes, in two files each."""
    from datasets import Dataset, DatasetDict

    sets = {name: Dataset.from_list(rows) for name, rows in splits.items()}
    if list(sets) == ["only"]:
        sets["only"].save_to_disk(folder, num_shards=2)
    else:
        DatasetDict(sets).save_to_disk(folder, num_shards=dict.fromkeys(sets, 1))
    return folder


def test_saved_datasets(tmp_path: Path) -> None:
    rows = [{"n": str(number), "t": ["é"]} for number in range(5)]
    one = saved(tmp_path / "one", only=rows)
    assert fetch_rows(tmp_path, one).rows == rows
    assert fetch_rows(tmp_path, one, split="train[1:2]").rows == rows[1:2]
    several = saved(tmp_path / "several", train=rows[:3], test=rows[3:])
    assert fetch_rows(tmp_path, several).rows == rows[:3]
    assert fetch_rows(tmp_path, several, role="test").rows == rows[3:]
    state = json.loads((one / "state.json").read_text())
    (one / state["_data_files"][1]["filename"]).unlink()
    with pytest.raises(RegrowError, match=r"has no data-00001-of-00002\.arrow, which its state\.json names"):
        fetch_rows(tmp_path, one)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ('{"_data_files": null}', "does not name its files"),
        ('{"_data_files": [{}]}', "does not name its files"),
        ('{"_data_files": [{"filename": "../x.arrow"}]}', r"has no \.\./x\.arrow"),
        ('{"_data_files": [], "_indices_data_files": [{"filename": "i.arrow"}]}', "holds a selection apart from its rows"),
        ("[]", "is not a JSON object"),
    ],
)
def test_a_saved_dataset_that_is_damaged_is_refused(tmp_path: Path, state: str, message: str) -> None:
    with pytest.raises(RegrowError, match=message):
        fetch_rows(tmp_path, folder(tmp_path, state__json=state))


def test_default_is_the_configuration_of_a_source_without_any(tmp_path: Path) -> None:
    root = folder(tmp_path, "train.jsonl")
    assert names(fetch_rows(tmp_path, root, name="default")) == ["train.jsonl"]
    assert names(fetch_rows(tmp_path, root / "train.jsonl", name="default")) == ["train.jsonl"]
    with pytest.raises(RegrowError, match="has no configuration 'other'"):
        fetch_rows(tmp_path, root, name="other")
    with pytest.raises(RegrowError, match=r"dataset_dict\.json does not name its splits"):
        fetch_rows(tmp_path, folder(tmp_path / "saved", dataset_dict__json="{}"))


def test_a_folder_without_rows_lists_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(RegrowError, match=r"has no file of rows \(there are make\.py, x\.bin\).*\n.*script.*refs/convert/parquet"):
        fetch_rows(tmp_path, folder(tmp_path, make__py="", x__bin=""))

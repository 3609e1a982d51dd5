"""What pack says of its plan: every token of every source accounted for, and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.artifact import open_artifact
from pipeline.bins import Bins
from pipeline.errors import RegrowError
from pipeline.kept import EXACT, KeptRows
from pipeline.tokens import TokenWriter
from stages.pack import STAGE
from tests.tiny import publish_artifact, run_stage

Source = tuple[str, str, list[int]]
"""Split, dataset type and lengths of rows, of which the last three tokens are trained."""


def pack(workspace: Path, sources: list[Source], removed: list[int], **options: Any) -> dict[str, Any]:
    def fill(folder: Path) -> None:
        with TokenWriter(folder, np.dtype(np.uint16)) as writer:
            for number, (_, _, lengths) in enumerate(sources):
                for row, length in enumerate(lengths):
                    writer.add(np.full(length, 3), np.arange(length) >= length - 3, number, row)

    facts = [
        {"name": f"{split}-{at:02}", "split": split, "path": "a", "file": "a", "type": kind} for at, (split, kind, _) in enumerate(sources)
    ]
    publish_artifact(workspace / "data", "tokens", fill, sources=facts)
    kept = KeptRows.all_of(sum(len(lengths) for _, _, lengths in sources))
    kept.remove(np.array(removed, np.int64), EXACT)
    publish_artifact(workspace / "data", "dedupe", lambda folder: kept.save(folder / "index.arrow"))
    run_stage(STAGE, workspace, {"sequence_len": 16} | options)
    return dict(open_artifact(workspace / "data" / "packed").content)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["train", "train", "test"]),
            st.sampled_from(["chat_template", "completion"]),
            st.lists(st.integers(1, 40), min_size=2, max_size=12),
        ),
        min_size=1,
        max_size=4,
    ),
    st.fixed_dictionaries(
        {
            "excess_length_strategy": st.sampled_from(["drop", "truncate"]),
            "min_sample_len": st.integers(1, 6),
            "eval_sequence_len": st.sampled_from([None, 7]),
            "sample_packing": st.booleans(),
            "eval_sample_packing": st.booleans(),
            "dataset_shard_num": st.sampled_from([None, 2]),
            "use_pose": st.booleans(),
            "pose_max_context_len": st.just(50),
        }
    ),
    st.data(),
)
def test_every_token_of_every_source_is_somewhere(
    tmp_path_factory: pytest.TempPathFactory, sources: list[Source], options: dict[str, Any], data: st.DataObject
) -> None:
    workspace, total = tmp_path_factory.mktemp("packed"), sum(len(lengths) for _, _, lengths in sources)
    removed = sorted(data.draw(st.sets(st.integers(0, total - 1), max_size=3)))
    try:
        content = pack(workspace, sources, removed, **options)
    except RegrowError as error:
        assert "No training row" in error.message
        return
    assert [source["all"] for source in content["sources"]] == [{"rows": len(lengths), "tokens": sum(lengths)} for _, _, lengths in sources]
    for source in content["sources"]:
        parts = [source["removed"], source["train"], source["eval"], source["truncated"], *source["dropped"].values()]
        assert sum(part["tokens"] for part in parts) == source["all"]["tokens"]
    for split in ("train", "eval"):
        bins = Bins.load(workspace / f"data/packed/{split}.arrow")
        assert sum(source[split]["rows"] for source in content["sources"]) == len(bins.row) == content[split]["rows"]
        assert content[split]["lower_bound_bins"] <= content[split]["bins"] == len(bins)
    lost = sum(part["tokens"] for source in content["sources"] for part in source["dropped"].values())
    assert lost == content["dropped_tokens"]


def test_reasons_are_counted_source_by_source(tmp_path: Path) -> None:
    sources = [("train", "chat_template", [1, 5, 30]), ("train", "chat_template", [20, 8]), ("test", "chat_template", [9])]
    content = pack(tmp_path, sources, [4], min_sample_len=2)
    first, second, test = content["sources"]
    assert first["dropped"] == {
        "shorter than min_sample_len 2": {"rows": 1, "tokens": 1},
        "longer than sequence_len 16": {"rows": 1, "tokens": 30},
    }
    assert second["dropped"] == {"longer than sequence_len 16": {"rows": 1, "tokens": 20}}
    assert second["removed"] == {"rows": 1, "tokens": 8} and test["eval"] == {"rows": 1, "tokens": 9}
    assert content["dropped"] == {"shorter than min_sample_len 2": 1, "longer than sequence_len 16": 2}
    assert content["dropped_tokens"] == 51


def test_a_small_evaluation_set_keeps_its_last_bin(tmp_path: Path) -> None:
    for rows in range(1, 6):
        sources: list[Source] = [("train", "chat_template", [9] * 8), ("test", "chat_template", [9] * rows)]
        content = pack(tmp_path / str(rows), sources, [], sample_packing=True, eval_sample_packing=True)
        assert content["eval"]["rows"] == content["eval"]["bins"] == rows
    one = pack(tmp_path / "one", [("train", "chat_template", [9] * 8), ("test", "chat_template", [4])], [], eval_sample_packing=True)
    assert one["eval"]["bins"] == 1 and one["eval"]["efficiency"] == 0.25


def test_1_holds_out_every_row(tmp_path: Path) -> None:
    content = pack(tmp_path, [("train", "chat_template", [9] * 8)], [], val_set_size=1)
    assert content["train"]["bins"] == content["train"]["lower_bound_bins"] == 0 and content["eval"]["rows"] == 8
    assert "No training rows" in (tmp_path / "data/packed/lengths.svg").read_text(encoding="utf-8")


def test_a_limit_of_rows_shows_in_the_numbers(tmp_path: Path) -> None:
    rows: list[Source] = [("train", "chat_template", [2] * 16)]
    default, limited = (
        pack(tmp_path / name, rows, [], sample_packing=True, **more) for name, more in (("a", {}), ("b", {"sample_packing_bin_size": 3}))
    )
    assert (default["train"]["bins"], default["train"]["most_rows"]) == (2, 8)
    assert limited["train"] | {"bins": 6, "most_rows": 3, "lower_bound_bins": 6} == limited["train"]
    grouped = pack(tmp_path / "c", rows, [], sample_packing=True, sample_packing_group_size=3)
    assert grouped["train"]["bins"] == 6


def test_200_rows_fill_a_bin_unless_said_otherwise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[Source] = [("train", "chat_template", [2] * 300)]
    default = pack(tmp_path / "default", rows, [], sequence_len=600, sample_packing=True)["train"]
    assert (default["bins"], default["lower_bound_bins"]) == (2, 2) and "sample_packing_bin_size" in capsys.readouterr().err
    any_number = pack(tmp_path / "any", rows, [], sequence_len=600, sample_packing=True, sample_packing_bin_size=None)["train"]
    assert (any_number["bins"], any_number["most_rows"]) == (1, 300) and "sample_packing_bin_size" not in capsys.readouterr().err


def test_the_picture_says_in_words_what_it_shows(tmp_path: Path) -> None:
    sources: list[Source] = [("train", "chat_template", [9, 7, 16]), ("train", "completion", [40])]
    first, again = (pack(tmp_path / name, sources, [], sample_packing=True) for name in "ab")
    files = [(tmp_path / name / "data/packed/lengths.svg").read_bytes() for name in "ab"]
    assert files[0] == files[1] and first == again
    root = ElementTree.fromstring(files[0])
    space = "{http://www.w3.org/2000/svg}"
    assert root.findtext(f"{space}desc") == "4 rows of 7 to 16 tokens, median 8, in 3 bins, which are 83.3 % full."
    texts = {text.text for text in root.iter(f"{space}text")}
    assert {"Rows by length", "Bins by how full they are", "of 16 tokens are filled", "train-00", "train-01", "bins"} <= texts

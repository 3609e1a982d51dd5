"""`regrow trace`: every token leads back to its row, every row forward to its fate, and both agree with what train did."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from pipeline.bins import Bins
from pipeline.cli import app
from pipeline.errors import RegrowError
from pipeline.left_out import LeftOut
from pipeline.lineage.fields import find_places
from pipeline.lineage.steps import TrainedOrder
from pipeline.order import BinOrder
from pipeline.tokens import TokenTable
from stages.pack import STAGE as PACK
from tests.pipeline.traced import BLANK, LONG, MALFORMED, NUMBERS, OPTIONS, TWIN, build, publish_sources, rows_of_first
from tests.tiny import run_stage
from tests.tokenize.rows import decode


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["trace", *arguments], env={"COLUMNS": "200"})
    if result.exception is not None:
        raise result.exception
    return result.stdout


def found(*arguments: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(run(*arguments, "--format", "json"))
    return record


@pytest.mark.parametrize("split", ["train", "eval"])
def test_a_bin_leads_back_to_rows_fields_and_text(here: Path, split: str) -> None:
    bins, table = Bins.load(here / f"data/packed/{split}.arrow"), TokenTable(here / "data/tokens")
    first = rows_of_first()
    for number in range(len(bins)):
        record = found("--packed", str(number), "--split", split)
        assert [span["number"] for span in record["spans"]] == [row for row, _, _ in bins.spans(number)]
        for span in record["spans"]:
            row = span["number"]
            assert (span["row"], span["path"]) == (int(table.row[row]), ("./my/a.jsonl", "./other/a.jsonl")[table.source[row]])
            assert span["text"] == "".join(part["text"] for part in span["parts"]) == decode(table.ids(row)) or "\ufffd" in span["text"]
            assert span["trained"] == int(table.mask(row)[1:].sum())
            fields = {item["field"]: item for item in span["fields"]}
            assert set(fields) >= {"messages[0].content", "messages[1].content"}
            if span["source"] == "train-00":
                messages = first[span["row"]]["messages"]  # type: ignore[index,call-overload]
                for at, message in enumerate(messages):
                    item = fields[f"messages[{at}].content"]
                    assert (
                        span["text"][slice(*item["characters"])]
                        == message["content"][slice(*item["field_characters"])]
                        == message["content"]
                    )


def test_a_position_leads_to_the_very_token(here: Path) -> None:
    """Tokens are bytes here: of the two and three bytes of é and ✓ each counts as the whole character."""
    bins, table = Bins.load(here / "data/packed/train.arrow"), TokenTable(here / "data/tokens")
    ids = np.concatenate([table.ids(row) for row, _, _ in bins.spans(0)])
    mask = np.concatenate([table.mask(row) for row, _, _ in bins.spans(0)])
    for position in range(0, len(ids), 3):
        (span,) = found("--packed", f"0:{position}")["spans"]
        token = span["token"]
        assert (token["id"], token["trained"]) == (int(ids[position]), bool(mask[position]))
        assert span["bin_tokens"][0] + token["row_position"] == position
        assert len(token["text"]) == 1 or token["text"].startswith("<|im")
        first, last = token["characters"]
        assert span["text"][first:last] == token["text"]


def test_the_trained_part_is_visible(here: Path) -> None:
    shown = run("--packed", "0")
    assert "\n⟦it is " in shown and "✓<|im_end|>⟧↵" in shown and "messages[1].content [0:10] are characters" in shown
    assert "token 45 of the row" in run("--packed", "0:45")


@pytest.mark.parametrize(
    ("row", "stage", "expected"),
    [
        (MALFORMED, "tokenize", {"outcome": "left out", "reason": "malformed JSON"}),
        (BLANK, "tokenize", {"outcome": "not there", "reason": "the line is blank"}),
        (99, "tokenize", {"outcome": "not there", "reason": "the file has fewer lines"}),
        (LONG, "pack", {"outcome": "left out", "reason": "longer than sequence_len 128"}),
    ],
)
def test_a_row_that_is_not_trained_says_why(here: Path, row: int, stage: str, expected: dict[str, str]) -> None:
    record = found("--row", f"train-00:{row}")
    assert record[stage] == expected and list(record)[-1] == stage
    assert f"{expected['outcome']}: {expected['reason']}" in run("--row", f"train-00:{row}")


def test_duplicates_know_each_other(here: Path) -> None:
    twin, kept = found("--row", f"train-00:{TWIN}"), found("--row", "train-00:0")
    assert twin["dedupe"]["duplicate_of"] == {"source": "train-00", "file": "a.jsonl", "row": 0, "number": 0}
    assert [row["row"] for row in kept["dedupe"]["duplicates"]] == [TWIN] and "pack" not in twin
    assert "duplicate of train-00 a.jsonl, row 0" in run("--row", f"train-00:{TWIN}")


def test_rows_have_the_numbers_of_their_source(here: Path) -> None:
    assert found("--row", "./other/a.jsonl:7")["tokenize"]["outcome"] == "tokenized"
    assert "fetch did not take it" in found("--row", "train-01:8")["tokenize"]["reason"]
    assert found("--row", "a.jsonl:40")["path"] == "./other/a.jsonl", "only one of the two files has such a row"


def test_steps_and_rows_agree_and_add_up_to_the_log(here: Path) -> None:
    """Forward from every row and backward from every step is the same relation, and its tokens are those that train counted."""
    table = TokenTable(here / "data/tokens")
    by_step: Counter[tuple[int, int]] = Counter()
    log = {int(line.split(",")[0]): int(line.split(",")[5]) for line in (here / "data/trained/log.csv").read_text().splitlines()[1:]}
    tokens = 0
    for step in range(1, 7):
        record = found("--step", str(step))
        spans = [row for item in record["bins"] for row in item["rows"]]
        by_step.update((row["number"], step) for row in spans)
        tokens += sum(row["tokens"][1] - row["tokens"][0] for row in spans)
        assert record["epoch"] == (step - 1) // 3 and log.get(step, tokens) == tokens
        assert int(record["logged"]["step"]) >= step
    by_row: Counter[tuple[int, int]] = Counter()
    for number in range(len(table)):
        record = found("--row", f"train-{int(table.source[number]):02d}:{int(table.row[number])}")
        by_row.update((number, item["step"]) for item in record.get("train", {}).get("steps", ()))
        if record.get("pack", {}).get("outcome") == "packed":
            assert [item["epoch"] for item in record["train"]["steps"]] == [0, 1]
    assert by_row == by_step and sum(by_row.values()) == 22
    assert "step 6, epoch 1: 1 bins (logged at step 6, loss " in run("--step", "6")


def test_rows_that_are_held_out_are_not_trained(here: Path) -> None:
    bins, table = Bins.load(here / "data/packed/eval.arrow"), TokenTable(here / "data/tokens")
    for number, row in enumerate(bins.row.tolist()):
        record = found("--row", f"train-{int(table.source[row]):02d}:{int(table.row[row])}")
        assert record["pack"]["outcome"] == "held out" and "train" not in record
        assert record["pack"]["places"] == [
            {"split": "eval", "bin": number, "bin_tokens": [0, int(bins.length[number])]} | record["pack"]["places"][0]
        ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["was asked nothing", "--row SOURCE:ROW"]),
        (["--row", "train-00:1", "--step", "1"], ["--row and --step"]),
        (["--step", "1", "--split", "eval"], ["--split eval belongs to --packed"]),
        (["--packed", "x"], ["names no bin", "BIN:POSITION"]),
        (["--packed", "5"], ["no bin 5", "0 to 4"]),
        (["--packed", "0:999"], ["no position 999", "0 to 101"]),
        (["--row", "train-00"], ["names no row", "train-00:17"]),
        (["--row", "b.jsonl:1"], ["no source 'b.jsonl'", "train-00 a.jsonl; train-01 a.jsonl"]),
        (["--row", "a.jsonl:7"], ["2 files with a row 7", "train-00/a.jsonl:7; train-01/a.jsonl:7"]),
        (["--step", "0"], ["no step 0", "from 1 to 6"]),
        (["--step", "7"], ["no step 7", "from 1 to 6"]),
    ],
)
def test_what_cannot_be_found_is_said_with_what_can(here: Path, arguments: list[str], words: list[str]) -> None:
    with pytest.raises(RegrowError) as caught:
        run(*arguments)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.fixture
def copy(finished_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the finished project that may be changed."""
    shutil.copytree(finished_project, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def test_a_row_is_followed_as_far_as_artifacts_are_there(copy: Path) -> None:
    shutil.rmtree(copy / "data/trained")
    assert found("--row", "train-00:0")["train"] == {"outcome": "unknown", "reason": "data/trained is not there"}
    shutil.rmtree(copy / "data/packed")
    assert found("--row", "train-00:0")["pack"] == {"outcome": "unknown", "reason": "data/packed is not there"}
    with pytest.raises(RegrowError, match=r"packed is not there[\s\S]*regrow pack"):
        run("--packed", "0")


def test_artifacts_of_other_inputs_are_not_mixed_up(copy: Path) -> None:
    """Packed anew: where the rows went is known, which steps saw them no more."""
    run_stage(PACK, copy, OPTIONS | {"seed": 1})
    record = found("--row", "train-00:0")
    assert record["pack"]["outcome"] in ("packed", "held out")
    with pytest.raises(RegrowError, match="was made from another data/packed"):
        run("--step", "1")
    manifest = copy / "data/raw/manifest.json"
    shutil.rmtree(copy / "data/raw")
    publish_sources(copy / "data", [([], None), ([], NUMBERS)])
    assert manifest.is_file()
    (span,) = found("--packed", "0:0")["spans"]
    assert span["fields"] == [] and span["fields_unknown"] == "data/tokens was made from another data/raw than the one there now"


def test_rows_that_are_cut_and_texts_in_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = build(tmp_path, excess_length_strategy="truncate", sequence_len=44, sample_packing=False, max_steps=1)
    monkeypatch.chdir(project)
    record = found("--row", "train-00:0")["pack"]
    assert record["tokens_left_out"] == 5 and record["reason"] == "cut to the length that options allow"
    assert found("--row", f"train-00:{LONG}")["pack"]["reason"] == "nothing trained within sequence_len"
    spans = [span for number in range(11) for span in found("--packed", str(number))["spans"]]
    cut = [span for span in spans if span["row_tokens"] > 44]
    assert cut and all(span["tokens"] == [0, 44] and span["characters"][1] < span["row_characters"] for span in cut)
    assert any(found("--row", f"train-00:{row}").get("train", {}).get("outcome") == "not reached" for row in range(5, 14))


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.integers(1, 30), st.integers(1, 7), st.integers(1, 40), st.one_of(st.none(), st.integers(0, 5)))
def test_every_step_takes_its_bins_and_every_bin_knows_its_steps(bins: int, per_step: int, steps: int, seed: int | None) -> None:
    order = TrainedOrder(BinOrder(np.ones(bins, np.int64), seed).of_epoch, per_step, -(-bins // per_step), steps)
    forward = {(int(number), step) for step in range(1, steps + 1) for number in order.bins_of(step)}
    backward = {(number, step) for number in range(bins) for _, step in order.steps_of(number)}
    assert forward == backward


def test_longer_fields_choose_first_and_equal_ones_take_turns() -> None:
    text = "no: is this sarcastic? note the news\nno\nno"
    row = {"answer": "no", "headline": "  note the news ", "again": ["no"], "number": 1}
    places = {(place.field, place.start, place.at) for place in find_places(text, [(0, len(text))], row)}
    assert places == {("headline", 2, 23), ("answer", 0, 0), ("again[0]", 0, 37)}


def test_of_a_field_that_was_cut_the_part_is_found() -> None:
    text = "<s>the first half of it</s>"
    (place,) = find_places(text, [(3, 23)], {"text": "Before. the first half of it, and more"})
    assert (place.field, place.start, place.at, place.length) == ("text", 8, 3, 20)


def test_the_index_of_rows_left_out(tmp_path: Path) -> None:
    index = LeftOut.of([("long", np.array([9, 4])), ("rest", np.array([2, 4]))])
    index.save(tmp_path / "a.arrow")
    read = LeftOut.load(tmp_path / "a.arrow")
    assert [read.why(row) for row in (2, 4, 9, 3, 100)] == ["rest", "long", "long", None, None]
    LeftOut.of([]).save(tmp_path / "b.arrow")
    assert LeftOut.load(tmp_path / "b.arrow").why(0) is None

"""The stage through its door: determinism, what it refuses, what it does without held-out rows or choices."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import RegrowError
from stages.eval import STAGE
from tests.eval.conftest import OPTIONS
from tests.eval.workspace import Row, chat_row, make_workspace, replace, reseal
from tests.tiny import publish_bins, run_stage


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_two_runs_write_the_same_bytes(copy: Path, evaluated: Path) -> None:
    run_stage(STAGE, copy, OPTIONS)
    assert contents(copy / "data" / "eval") == contents(evaluated)


def test_files_for_plots(workspace: Path, evaluated: Path, metrics: Any) -> None:
    assert (evaluated / "loss.csv").read_bytes() == (workspace / "data" / "trained" / "log.csv").read_bytes()
    for file, measure in (("accuracy.csv", "accuracy"), ("held_out_loss.csv", "loss")):
        head, *lines = (evaluated / file).read_text().splitlines()
        assert head == "model,measure,value,low,high"
        assert [line.split(",")[:3] for line in lines] == [
            [name, measure, str(metrics[name][measure])] for name in ("base", "merged", "int8", "q8_0")
        ]


def test_returned_scores(copy: Path) -> None:
    _, returned = run_stage(STAGE, copy, {"eval": {"samples": 0, "batch_size": 4}})
    written = json.loads((copy / "data" / "eval" / "metrics.json").read_text())
    assert returned["rows"] == 10
    assert returned["merged"] == {"exact_match": written["merged"]["exact_match"], "loss": written["merged"]["loss"]}
    assert "accuracy" not in written["merged"]
    assert returned["verdict"].startswith("Fine-tuning moved loss from ")
    assert (copy / "data" / "eval" / "samples.jsonl").read_text() == ""
    assert "Samples" not in (copy / "data" / "eval" / "report.html").read_text()


def test_batch_size_decides_memory_not_results(copy: Path, metrics: Any) -> None:
    run_stage(STAGE, copy, {"eval": {**OPTIONS["eval"], "batch_size": 1, "samples": 0}})
    alone = json.loads((copy / "data" / "eval" / "metrics.json").read_text())
    for name in ("base", "merged", "int8", "q8_0"):
        assert alone[name]["loss"] == pytest.approx(metrics[name]["loss"], abs=2e-5)
        assert alone[name]["accuracy"] == metrics[name]["accuracy"]


def test_nothing_held_out(nothing_held_out: Path) -> None:
    data = nothing_held_out / "data"
    _, returned = run_stage(STAGE, nothing_held_out, OPTIONS)
    assert json.loads((data / "eval" / "metrics.json").read_text()) == {"held_out": {"rows": 0, "tokens": 0}}
    report = (data / "eval" / "report.html").read_text()
    assert "no row is held out" in returned["verdict"]
    assert returned["verdict"] in report
    assert "Training loss" in report
    assert "Held-out loss" not in report


def test_rows_that_were_trained_too_are_counted(copy: Path) -> None:
    replace(copy / "data", "packed", lambda: publish_bins(copy / "data", [[8, 9, 10, 11]], [[row] for row in range(10)]))
    run_stage(STAGE, copy, {"eval": {"samples": 0}})
    assert json.loads((copy / "data" / "eval" / "metrics.json").read_text())["held_out"]["rows_also_trained"] == 2
    assert "2 of these rows equal a training row" in (copy / "data" / "eval" / "report.html").read_text()


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        (["yes", "yeah"], ["'yes'", "'yeah'", "same token"]),
        (["yes", "maybe"], ["rows.jsonl", "row 0", "'n'", "'maybe'"]),
        (["yes", ""], ["''", "no tokens"]),
    ],
)
def test_choices_that_cannot_work_are_refused(choices: list[str], words: Sequence[str], copy: Path) -> None:
    with pytest.raises(RegrowError) as refused:
        run_stage(STAGE, copy, {"eval": {"choices": choices}})
    assert all(word in str(refused.value) for word in [*words, "eval.choices"])
    assert not (copy / "data" / "eval").exists()


def test_a_diverged_model_is_named(copy: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = copy / "data" / "merged" / "model.safetensors"
    weights = load_file(file)
    weights["model.norm.weight"][:] = float("nan")
    save_file(weights, file, {"format": "pt"})
    reseal(copy / "data", "merged")
    with pytest.raises(RegrowError, match=r"merged model's loss on rows\.jsonl, row 0 is nan"):
        run_stage(STAGE, copy, {"eval": {"samples": 0}})


def test_rows_are_judged_from_their_second_token_and_prompts_may_be_short(tmp_path: Path) -> None:
    def rows(tokenizer: Any) -> list[Row]:
        ids = tokenizer.encode("all of this is trained", add_special_tokens=False)
        return [(ids, [1] * len(ids)), (ids[:4], [1, 0, 0, 0]), chat_row(tokenizer, "q", "a")]

    workspace = make_workspace(tmp_path, rows, held_out=2)
    run_stage(STAGE, workspace, {"eval": {"max_new_tokens": 2}})
    held_out = json.loads((workspace / "data" / "eval" / "metrics.json").read_text())["held_out"]
    assert held_out == {"rows": 1, "tokens": len("all of this is trained") - 1, "rows_without_trained_tokens": 1}
    sample = json.loads((workspace / "data" / "eval" / "samples.jsonl").read_text())
    assert (sample["prompt"], sample["reference"]) == ("a", "ll of this is trained")

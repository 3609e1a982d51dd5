"""What was found out stays found out: by the digests of model and task, through kills, damage and deletion."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import RegrowError
from pipeline.model_folder import open_model
from stages.eval import STAGE, subjects
from stages.eval.results import Results, Task
from tests.eval.conftest import OPTIONS
from tests.eval.workspace import drop_quantized, reseal
from tests.tiny import run_stage


class Opened(list[str]):
    """Names of the folders whose models were opened; ``breaks`` at one of them."""

    breaks: str | None = None


@pytest.fixture
def opens(monkeypatch: pytest.MonkeyPatch) -> Opened:
    seen = Opened()

    def watched(folder: Path) -> Any:
        if folder.name == seen.breaks:
            raise RegrowError("killed")
        seen.append(folder.name)
        return open_model(folder)

    monkeypatch.setattr(subjects, "open_model", watched)
    return seen


@pytest.fixture
def known(evaluated: Path) -> Path:
    """A workspace that was evaluated; read only."""
    return evaluated.parents[1]


@pytest.fixture
def again(known: Path, tmp_path: Path) -> Path:
    """The same, of one's own."""
    shutil.copytree(known, tmp_path / "again")
    return tmp_path / "again"


def cached(workspace: Path, pattern: str = "*") -> list[Path]:
    return sorted((workspace / ".regrow/cache/eval").glob(pattern))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_an_unchanged_model_is_not_opened_and_the_artifact_is_that_of_a_cold_run(again: Path, opens: Opened) -> None:
    cold = contents(again / "data/eval")
    shutil.rmtree(again / "data/eval")
    run_stage(STAGE, again, OPTIONS)
    assert opens == []
    assert contents(again / "data/eval") == cold


def test_deleting_one_result_computes_only_that_one(again: Path, opens: Opened) -> None:
    cold, before = contents(again / "data/eval"), {path: path.read_bytes() for path in cached(again)}
    assert len(before) == 2 * 4  # loss and answers of base, merged, int8, q8_0
    gone = cached(again, "loss-*")[0]
    gone.unlink()
    run_stage(STAGE, again, OPTIONS)
    assert len(opens) == 1
    assert {path: path.read_bytes() for path in cached(again)} == before
    assert contents(again / "data/eval") == cold


def test_a_damaged_result_counts_as_missing(again: Path, opens: Opened) -> None:
    cold, path = contents(again / "data/eval"), cached(again, "answers-*")[2]
    stored = path.read_bytes()
    path.write_bytes(stored[:-9])
    run_stage(STAGE, again, OPTIONS)
    assert len(opens) == 1
    assert contents(again / "data/eval") == cold


def test_a_result_in_the_place_of_another_counts_as_missing(again: Path, opens: Opened) -> None:
    first, second = cached(again, "loss-*")[:2]
    shutil.copyfile(first, second)
    cold = contents(again / "data/eval")
    run_stage(STAGE, again, OPTIONS)
    assert len(opens) == 1
    assert contents(again / "data/eval") == cold


def test_only_a_changed_model_is_judged_again(again: Path, opens: Opened) -> None:
    (again / "data/merged/README.md").write_text("Words for people change no model.")
    config = again / "data/quantized/int8/config.json"
    config.write_text(config.read_text() + "\n")
    reseal(again / "data", "merged")
    reseal(again / "data", "quantized")
    run_stage(STAGE, again, OPTIONS)
    assert opens == ["int8"]


def test_after_a_kill_finished_models_are_not_judged_again(copy: Path, known: Path, opens: Opened) -> None:
    opens.breaks = "int8"
    with pytest.raises(RegrowError, match="killed"):
        run_stage(STAGE, copy, OPTIONS)
    assert opens == ["base", "merged"]
    opens.breaks = None
    run_stage(STAGE, copy, OPTIONS)
    assert opens == ["base", "merged", "int8", "q8_0"]
    assert contents(copy / "data/eval") == contents(known / "data/eval")


def test_another_option_asks_only_what_it_changes(again: Path, opens: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    from stages.eval import tasks

    monkeypatch.setattr(tasks, "judge", None)  # nothing is judged again
    run_stage(STAGE, again, {"eval": {**OPTIONS["eval"], "max_new_tokens": 2}})
    assert len(opens) == 4
    answers = json.loads((again / "data/eval/samples.jsonl").read_text().splitlines()[1])["answers"]
    assert answers["merged"] == {"text": "ye", "ended": False, "matches": False}


def test_other_code_is_another_task(again: Path, opens: Opened) -> None:
    drop_quantized(again / "data")
    run_stage(STAGE, again, OPTIONS, code="another")
    assert len(opens) == 2


def test_the_folder_does_not_grow_for_ever(tmp_path: Path) -> None:
    results = Results(tmp_path)
    for number in range(4):
        Results(tmp_path).get(Task("old", str(number)), "model", lambda: ["x" * 100])
        os.utime(sorted(tmp_path.iterdir(), key=lambda path: path.stat().st_mtime_ns)[-1], (number, number))
    (tmp_path / "loss.partial").write_text("left by a killed run")
    kept = results.get(Task("old", "0"), "model", lambda: None)
    results.prune(most_bytes=500)
    assert kept == ["x" * 100]
    assert len(list(tmp_path.iterdir())) == 2
    assert Results(tmp_path).get(Task("old", "0"), "model", lambda: "gone") == kept
    assert Results(tmp_path).get(Task("old", "1"), "model", lambda: "gone") == "gone"


def test_numbers_survive_to_the_last_bit(tmp_path: Path) -> None:
    values = [0.1 + 0.2, 1e-320, 12345678.000000001, -0.0]
    found = Results(tmp_path).get(Task("loss", "d"), "m", lambda: values)
    assert [value.hex() for value in found] == [value.hex() for value in values]

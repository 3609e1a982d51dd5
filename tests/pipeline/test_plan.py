"""`regrow plan` says what `dvc repro` then does, says why, and changes nothing."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.pipeline.planned import ALL, DATA, Outcome, Planned, append_row, both, forget, remove, tamper, touch, unchanged, upgrade, write

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Planned:
    return Planned(tmp_path_factory.mktemp("planned"))


@pytest.fixture
def project(built: Planned) -> Iterator[Planned]:
    """As it was when everything had run."""
    yield built
    built.restore()


def code(old: str, new: str) -> Callable[[Planned], None]:
    return lambda project: project.replace("stages/merge/__init__.py", old, new)


NEW_OPTIMIZER = write(learning_rate=0.02, optimizer="sgd")
EDITS: dict[str, tuple[Callable[[Planned], None], list[str], list[str]]] = {
    # what is done, up to which stage DVC is asked, reasons that must be among those that plan gives
    "options of tokenize and dedupe": (
        write(train_on_inputs=True, dataset_exact_deduplication=False),
        DATA,
        ["tokenize: option train_on_inputs: false -> true", "dedupe: option dataset_exact_deduplication: true -> false"],
    ),
    "option of pack and others": (write(seed=7), DATA, ["pack: option seed: 42 -> 7", "train: option seed", "eval: option seed"]),
    "options of train": (NEW_OPTIMIZER, ALL, ["train: option learning_rate: 0.01 -> 0.02", "train: option optimizer: "]),
    "option of merge": (write(merge={"max_shard_size_mb": 7}), ALL, ["merge: option merge.max_shard_size_mb: "]),
    "options of quantize and eval": (
        write(quantize=["q8_0"], eval={"samples": 2}),
        ALL,
        ["quantize: option quantize: ", "eval: option eval.samples: 1 -> 2"],
    ),
    "a default written out": (write(num_epochs=1.0), ALL, []),
    "one more source row": (append_row(77), DATA, ["fetch: input data/sources changed: train-00/rows.jsonl"]),
    "one byte of an artifact": (tamper, ALL, ["tokenize: output data/tokens was altered: "]),
    "artifacts deleted": (remove("data/merged", "data/raw"), ALL, ["merge: output data/merged is not there", "fetch: output data/raw"]),
    "an artifact gone from DVC's cache": (forget("data/merged"), ALL, ["merge: output data/merged is not in DVC's cache"]),
    "an artifact deleted that no cache holds": (
        both(remove("data/quantized"), forget("data/quantized")),
        ALL,
        ["quantize: output data/quantized is not there"],
    ),
    "dvc.lock deleted": (remove("dvc.lock"), ALL, ["fetch: run: none of it is in dvc.lock"]),
    "a comment, and other times of change": (both(code("def run(job):", "def run(job):  # says why\n    'And what.'"), touch), ALL, []),
    "a module's code": (code("given = {", "given = {'more': 1, "), ALL, ["merge: code stages/merge/__init__.py changed"]),
    "a library": (upgrade("99.1"), ALL, ["eval: library matplotlib: "]),
    "a stage's command": (
        lambda project: project.replace("dvc.yaml", "cmd: python -m pipeline run eval", "cmd: python -m  pipeline run eval"),
        ALL,
        ["eval: command: is now 'python -m  pipeline run eval'"],
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_what_is_planned_is_what_runs(project: Planned, name: str) -> None:
    edit, stages, expected = EDITS[name]
    edit(project)
    plan = project.plan(code=3 if expected else 0)
    reasons = [f"{stage}: {reason['text']}" for stage, entry in plan.items() for reason in entry["reasons"]]
    assert all(any(reason.startswith(start) for reason in reasons) for start in expected), reasons
    by_verdict = {
        verdict: {stage for stage in stages if plan[stage]["verdict"] == verdict} for verdict in ("runs", "may run", "from cache")
    }
    outcome = project.outcome(*stages[-1:])
    assert by_verdict["runs"] <= set(outcome.ran) <= by_verdict["runs"] | by_verdict["may run"]
    assert by_verdict["from cache"] <= set(outcome.cached) <= by_verdict["from cache"] | by_verdict["may run"]
    assert bool(outcome.ran or outcome.cached) == bool(expected)
    if stages == ALL:
        project.plan(code=0)


def test_going_back_is_from_cache_and_no_stage_runs(project: Planned) -> None:
    project.write({"merge": {"max_shard_size_mb": 9}})
    assert project.outcome().ran == ALL[5:]
    project.write({})
    plan = project.plan()
    assert [entry["verdict"] for entry in plan.values()] == ["nothing to do"] * 5 + ["from cache"] * 3
    assert plan["merge"]["reasons"][0]["text"].startswith("option merge.max_shard_size_mb: 9 -> ")
    assert plan["quantize"]["reasons"][0]["name"] == "data/merged" and "expected" not in plan["quantize"]
    assert project.outcome() == Outcome([], ALL[5:])


def test_an_artifact_of_another_run_is_told_from_an_altered_one(project: Planned) -> None:
    project.write({"val_set_size": 6})
    project.outcome("pack")
    shutil.copytree(project.root / "data/packed", project.root.parent / "other")
    project.restore()
    shutil.rmtree(project.root / "data/packed")
    shutil.move(project.root.parent / "other", project.root / "data/packed")
    reason = project.plan()["pack"]["reasons"][0]
    assert reason["text"] == "output data/packed is of another run than dvc.lock says" and reason["old"] != reason["new"]
    assert project.outcome() == Outcome([], ["pack"])


def test_options_of_the_last_run_are_known_after_others_were_configured(project: Planned) -> None:
    """A run that ended before train has written new options for it already."""
    project.write({"learning_rate": 0.5})
    project.run("regrow", "configure")
    assert [reason["text"] for reason in project.plan()["train"]["reasons"]] == ["option learning_rate: 0.01 -> 0.5"]
    shutil.rmtree(project.root / ".regrow/options")
    assert "kept nowhere on this disk" in project.plan()["train"]["reasons"][0]["text"]


def test_nothing_on_disk_changes(project: Planned) -> None:
    both(NEW_OPTIMIZER, append_row(78), tamper, remove("data/merged"), upgrade("99.2"))(project)
    with unchanged(project.root.parent):
        text = project.run("regrow", "plan", code=3)
    assert re.search(r"^train: runs$", text, re.MULTILINE) and "    option learning_rate: 0.01 -> 0.02" in text
    shutil.rmtree(project.root / ".dvc/tmp")
    with unchanged(project.root.parent):
        assert project.plan()["fetch"]["verdict"] == "runs"


def test_a_library_that_is_not_installed_as_locked_is_told(project: Planned) -> None:
    upgrade("99.3", installed=False)(project)
    text = project.run("regrow", "plan", code=3)
    assert "it would be refused: matplotlib is " in text and "requirements.lock says 99.3" in text


def test_what_it_takes_follows_earlier_runs(project: Planned) -> None:
    """The last four stages say that they saw 600 tokens in 6 steps and 2 epochs."""
    runs = project.root / "data/metrics/runs.jsonl"
    took = {json.loads(line)["stage"]: json.loads(line)["seconds"] for line in runs.read_text(encoding="utf-8").splitlines()}
    lines = [json.loads(line) | {"seconds": 100.0} for line in runs.read_text(encoding="utf-8").splitlines()]
    runs.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert set(took) == set(ALL)
    project.write({"max_steps": 12})
    train = project.plan()["train"]["expected"]
    assert train["exact"] and train["counts"]["steps"] == 12
    assert train["seconds"] == pytest.approx(100 * train["counts"]["tokens"] / 600, abs=0.1)
    project.write({"max_steps": 18, "sequence_len": 48})
    plan = project.plan()
    assert plan["pack"]["expected"]["counts"] == {"rows": 40} and plan["pack"]["expected"]["seconds"] == 100
    assert plan["train"]["expected"] | {"memory_mb": 0} == {
        "counts": {"steps": 18, "tokens": 1800},
        "exact": False,
        "seconds": 300,
        "memory_mb": 0,
        "gpu_memory_mb": None,
    }
    project.write({"max_steps": None, "num_epochs": 5, "sequence_len": 48})
    assert project.plan()["train"]["expected"]["seconds"] == 250
    runs.unlink()
    shutil.rmtree(project.root / "data/metrics")
    assert "time unknown: no such run here yet" in project.run("regrow", "plan", code=3)


def test_what_cannot_work_is_exit_code_2(project: Planned) -> None:
    project.write({"learning_rte": 1})
    assert "learning_rte" in project.run("regrow", "plan", code=2)
    project.write({})
    shutil.rmtree(project.root / ".dvc")
    try:
        assert "is not a DVC repository" in project.run("regrow", "plan", code=2)
    finally:
        shutil.copytree(Path(__file__).parents[2] / ".dvc", project.root / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp"))

"""lm-eval's tasks: what the package is asked, where, and what becomes of its answer. A double of it stands in its place."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import MissingExtra, RegrowError
from stages.eval import STAGE, harness
from tests.eval.workspace import drop_quantized, replace
from tests.tiny import publish_artifact, run_stage

OPTIONS = {"eval": {"samples": 0, "batch_size": 5, "lm_eval": {"tasks": ["own", "other"], "limit": 3}}}

DOUBLE = """
import json, os, sys
from pathlib import Path

def simple_evaluate(model, tasks, limit, bootstrap_iters, task_manager, log_samples):
    print("a note on stderr", file=sys.stderr)
    if not Path("rows.jsonl").exists() and "needs-data" in tasks:
        raise ConnectionError("Couldn't reach 'who/knows' on the Hub (OfflineModeIsEnabled)\\nmore")
    if "dies" in tasks:
        os._exit(9)
    asked = {
        "tasks": tasks, "limit": limit, "include": task_manager.include_path, "cwd": os.getcwd(), "rows": Path("rows.jsonl").exists(),
        "offline": [os.environ[name] for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")], "cache": os.environ["HF_DATASETS_CACHE"],
        "batch_size": model.batch_size, "parameters": sum(p.numel() for p in model.pretrained.parameters()),
        "words": model.tokenizer.decode(model.tokenizer.encode("hello")), "type": type(model.pretrained).__name__,
    }
    with open(os.environ["ASKED"], "a") as stream:
        stream.write(json.dumps(asked) + "\\n")
    own = {"alias": "own", "acc,none": 0.5, "acc_stderr,none": 0.22, "acc_norm,none": 2 / 3, "acc_norm_stderr,none": "N/A", "sample_len": 3}
    return {"results": {"own": own, "other": {"exact_match,strict": 1.0, "exact_match_stderr,strict": 0.0, " ": " "}}}
"""
PARTS = {
    "__init__.py": DOUBLE,
    "models/__init__.py": "",
    "models/huggingface.py": "class HFLM:\n    def __init__(self, **given):\n        self.__dict__ |= given\n",
    "tasks.py": "class TaskManager:\n    def __init__(self, include_path):\n        self.include_path = include_path\n",
}


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The double is installed; the file gets a line each time it is asked."""
    for name, text in PARTS.items():
        file = tmp_path / "site/lm_eval" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    info = tmp_path / "site/lm_eval-9.9.9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lm_eval\nVersion: 9.9.9\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    for name in [name for name in sys.modules if name.partition(".")[0] == "lm_eval"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setenv("ASKED", str(tmp_path / "asked.jsonl"))
    return tmp_path / "asked.jsonl"


@pytest.fixture
def small(nothing_held_out: Path) -> Path:
    """base and merged alone, and a folder of tasks."""
    data = nothing_held_out / "data"

    def fill(folder: Path) -> None:
        (folder / "lm-eval").mkdir()
        (folder / "lm-eval/own.yaml").write_text("task: own\n")
        (folder / "lm-eval/rows.jsonl").write_text("{}\n")

    drop_quantized(data)
    replace(data, "benchmark", lambda: publish_artifact(data, "benchmark", fill, sources=[]))
    return nothing_held_out


def test_it_is_asked_offline_where_the_tasks_files_are_and_only_once(small: Path, asked: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = small / "data"
    run_stage(STAGE, small, OPTIONS)
    lines = [json.loads(line) for line in asked.read_text().splitlines()]
    tasks = str((data / "benchmark/lm-eval").resolve())
    expected = {"tasks": ["own", "other"], "limit": 3, "include": tasks, "cwd": tasks, "rows": True, "offline": ["1", "1"], "batch_size": 5}
    assert len(lines) == 2
    for line in lines:
        assert {name: line[name] for name in expected} == expected
        assert line["words"] == "hello" and line["type"] == "LlamaForCausalLM" and str(small) in line["cache"]
    assert "a note on stderr" not in capfd.readouterr().err
    assert "a note on stderr" in (data / "metrics/eval/lm-eval.log").read_text()
    metrics = json.loads((data / "eval/metrics.json").read_text())
    own = {"acc": 0.5, "acc_stderr": 0.22, "acc_norm": 0.666667}
    assert metrics["merged"]["lm_eval"] == {"own": own, "other": {"exact_match:strict": 1.0, "exact_match:strict_stderr": 0.0}}
    assert metrics["lm_eval"] == {"version": "9.9.9"}
    html = (data / "eval/report.html").read_text()
    assert "lm-evaluation-harness" in html and "± 0.22" in html
    before = (data / "eval/metrics.json").read_bytes()
    run_stage(STAGE, small, OPTIONS)
    assert len(asked.read_text().splitlines()) == 2
    assert (data / "eval/metrics.json").read_bytes() == before


@pytest.mark.parametrize(
    ("task", "words"),
    [("needs-data", "lm-eval cannot do it: Couldn't reach 'who/knows' on the Hub"), ("dies", "ended without a result")],
)
def test_what_it_cannot_do_is_one_message(task: str, words: str, small: Path, asked: Path) -> None:
    replace(small / "data", "benchmark", lambda: publish_artifact(small / "data", "benchmark", lambda folder: None, sources=[]))
    with pytest.raises(RegrowError, match=words) as refused:
        run_stage(STAGE, small, {"eval": {"lm_eval": {"tasks": [task]}}})
    assert "\nmore" not in str(refused.value)


def test_without_the_package_the_extra_is_named(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"eval.lm_eval.tasks needs the package 'lm_eval'[^$]*regrow\[lm-eval\]"):
        run_stage(STAGE, small, OPTIONS)


REAL: dict[str, Any] = {"task": "own", "output_type": "multiple_choice", "dataset_path": "json", "test_split": "test"}


@pytest.mark.slow
def test_the_package_itself_reads_tasks_that_lie_beside_their_data(small: Path) -> None:
    pytest.importorskip("lm_eval", reason="an extra of regrow")
    data = small / "data"
    rows = [{"question": f"is {number} odd", "choices": ["no", "yes"], "answer": number % 2} for number in range(4)]
    task = REAL | {"dataset_kwargs": {"data_files": {"test": "rows.jsonl"}}, "doc_to_text": "{{question}}", "doc_to_target": "{{answer}}"}
    task |= {"doc_to_choice": "{{choices}}", "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}]}

    def fill(folder: Path) -> None:
        (folder / "lm-eval").mkdir()
        (folder / "lm-eval/own.yaml").write_text(json.dumps(task))
        (folder / "lm-eval/rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    replace(data, "benchmark", lambda: publish_artifact(data, "benchmark", fill, sources=[]))
    run_stage(STAGE, small, {"eval": {"lm_eval": {"tasks": ["own"]}}})
    found = json.loads((data / "eval/metrics.json").read_text())["base"]["lm_eval"]["own"]
    assert 0 <= found["acc"] <= 1 and "acc_stderr" in found

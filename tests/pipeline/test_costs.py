"""`regrow report`: the report of eval with what the stages took, which no artifact holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.costs import write_report
from pipeline.errors import RegrowError
from pipeline.project import Project
from tests.tiny import publish_artifact

PAGE = "<html><main>verdict\n<!-- costs -->\n</main></html>"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    publish_artifact(tmp_path / "data", "eval", lambda folder: (folder / "report.html").write_text(PAGE))
    return Project(tmp_path)


def record(project: Project, stage: str, outputs: dict[str, str], **more: Any) -> None:
    facts = {
        "seconds": 61.5,
        "cpu_seconds": 7384.0,
        "peak_memory_mb": 2048,
        "platform": "Linux <b>",
        "threads": 2,
        "metrics": {"tokens": 6150},
    }
    path = project.data / "metrics" / f"{stage}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"stage": stage, "outputs": outputs, **facts, **more}))


def test_costs_stand_in_the_copy_and_the_artifact_stays(project: Project, tmp_path: Path) -> None:
    tokens = publish_artifact(project.data, "tokens", lambda folder: (folder / "x").write_bytes(b"x" * 2_500_000))
    record(project, "tokenize", {"tokens": tokens.digest})
    record(project, "train", {"trained": "0" * 64}, tokens_per_second=123456.7, peak_gpu_memory_mb=4321)
    target = tmp_path / "there" / "costs.html"
    write_report(project, target, ("fetch", "tokenize", "train"))
    text = target.read_text()
    for words in ("1 min 2 s", "2 h 3 min", "2,048", "6,150", ">100<", "2.5", "123,457", "4,321", "Linux &lt;b&gt;, 2 threads"):
        assert words in text, words
    assert text.count("another run") == 1 and text.index("train") < text.index("another run")
    assert "fetch" not in text and "4 h 6 min" in text
    assert text.startswith("<html><main>verdict") and text.endswith("</main></html>")
    assert (project.data / "eval/report.html").read_text() == PAGE


def test_without_a_report_it_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(RegrowError, match=r"report.html is not there[^$]*dvc repro"):
        write_report(Project(tmp_path), tmp_path / "x.html", ("fetch",))


def test_a_record_that_is_none_is_named(project: Project) -> None:
    record(project, "fetch", {})
    (project.data / "metrics/fetch.json").write_text("{")
    with pytest.raises(RegrowError, match=r"fetch.json is not what a stage writes"):
        write_report(project, project.root / "x.html", ("fetch",))

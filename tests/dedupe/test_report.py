"""What people and programs read: counts that add up, examples that can be read, the same bytes every time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from pipeline.artifact import open_artifact
from pipeline.kept import EXACT, NEAR, OVERLAP
from tests.dedupe.workspace import dedupe, edited, publish_sources

ROOT = Path(__file__).parent.parent.parent
OPTIONS = {
    "dataset_exact_deduplication": True,
    "dedupe": {"near": {"threshold": 0.6}, "against": [{"path": "b", "type": "completion"}], "overlap": {"ngram": 5}},
}


def corpus() -> list[tuple[str, list[list[int]]]]:
    random = np.random.default_rng(0)
    first = [random.integers(5000, size=80).tolist() for _ in range(40)]
    second = [*(edited(row, 1, random) for row in first[:6]), edited(first[0], 1, random), first[7], first[8] + first[30][:5]]
    return [("train", first), ("train", second), ("test", [first[9], first[10][:60]]), ("against", [first[11][5:50]])]


def test_counts_add_up_by_source_and_cluster(tmp_path: Path) -> None:
    found = dedupe(tmp_path, corpus(), OPTIONS)
    report = json.loads((found.folder / "report.json").read_text())
    assert report["removed"] == found.metrics["removed"] == {EXACT: 2, NEAR: 9, OVERLAP: 1}
    first, second, test, apart = ("datasets[0] train0", "datasets[1] train1", "test_datasets[0] test0", "dedupe.against[0] against0")
    assert [(item["reason"], item["removed"], item["stays"], item["rows"]) for item in report["sources"]] == [
        (reason, f"{removed}.jsonl", f"{stays}.jsonl", rows)
        for reason, removed, stays, rows in (
            (EXACT, first, test, 1),
            (EXACT, second, first, 1),
            (NEAR, first, test, 1),
            (NEAR, second, first, 8),
            (OVERLAP, first, apart, 1),
        )
    ]
    assert report["near"]["clusters"] == {"2": 7, "3": 1}
    assert report["near"]["largest_clusters"][0] == {"source": f"{first}.jsonl", "row": 0, "rows": 3}
    assert report["roles"]["training"] == {"rows": 49, "kept": 37} and report["roles"]["held apart"] == {"rows": 1, "kept": 0}
    assert open_artifact(found.folder).content["kept"] == report["kept"] == 39


def test_removed_rows_stand_beside_those_that_stay(tmp_path: Path) -> None:
    rows = [[1, 2, 3, 4, 5, 6, 7, 8, 9, 10] * 4, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10] * 4 + [4999]]
    page = (dedupe(tmp_path, [("train", rows)], {"dedupe": {"near": {}}}).folder / "report.html").read_text()
    removed, stays = page.index("datasets[0] train0.jsonl, row 1"), page.index("datasets[0] train0.jsonl, row 0")
    assert removed < page.index("w4999</mark>") < stays
    assert "http" not in page and page.count("<mark>") == 1


def test_text_of_rows_is_no_markup(tmp_path: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    from stages.dedupe.page import _beside

    assert _beside("<b>&one", "<b>&two") == ("&lt;b&gt;&amp;<mark>one</mark>", "&lt;b&gt;&amp;<mark>two</mark>")
    assert Tokenizer(WordLevel({"a": 0}, "a")).decode([0]) == "a"


def test_hash_seed_and_threads_change_no_byte(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\nfrom tests.dedupe.test_report import OPTIONS, corpus\nfrom tests.dedupe.workspace import dedupe\n"
        "from pipeline.artifact import open_artifact\n"
        "print(open_artifact(dedupe(pathlib.Path(sys.argv[1]), corpus(), OPTIONS).folder).digest)"
    )
    digests = set()
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / seed)],
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        digests.add(done.stdout)
    assert len(digests) == 1


def test_losing_most_rows_is_said(tmp_path: Path) -> None:
    row = list(range(60))
    said = dedupe(tmp_path, [("train", [row] * 5)], {"dataset_exact_deduplication": True}).said
    assert any(line.startswith("warning: 1 of 5 training rows are left") for line in said)


def test_nothing_to_compare_with_is_no_error(tmp_path: Path) -> None:
    publish_sources(tmp_path / "data", [("train", [[1, 2, 3]])])
    found = dedupe(tmp_path, [("train", [[1, 2, 3]]), ("against", [[9]])], OPTIONS)
    assert found.kept == {(0, 0)}

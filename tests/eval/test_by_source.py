"""Loss and perplexity of each source, against plain sums over its rows."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.tokens import TokenTable, TokenWriter, id_dtype
from stages.eval import STAGE
from tests.eval.workspace import drop_quantized, questions, replace
from tests.eval.workspace import open_tokenizer as tokenizer_of
from tests.tiny import publish_artifact, publish_bins, run_stage


def publish_three_sources(data: Path) -> None:
    """Twelve rows: the first six of one entry, then three of each of the two files of another."""
    rows = questions(tokenizer_of(data))
    files = [("train-00", "a.jsonl"), ("train-01", "b.jsonl"), ("train-01", "c.jsonl")]

    def fill(folder: Path) -> None:
        with TokenWriter(folder, id_dtype(259)) as writer:
            for number, (ids, mask) in enumerate(rows):
                source = [0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2][number]
                writer.add(np.asarray(ids), np.asarray(mask), source, number)

    sources = [
        {"name": name, "split": "train", "path": f"./{file}", "file": file, "sha256": f"{number}" * 64}
        for number, (name, file) in enumerate(files)
    ]
    replace(data, "tokens", lambda: publish_artifact(data, "tokens", fill, sources=sources))
    replace(data, "packed", lambda: publish_bins(data, [[10, 11]], [[row] for row in range(10)]))


@pytest.fixture
def evaluated_by_source(copy: Path) -> Path:
    publish_three_sources(copy / "data")
    drop_quantized(copy / "data")
    run_stage(STAGE, copy, {"eval": {"samples": 0}})
    return copy / "data"


def test_each_source_has_its_own_sums(evaluated_by_source: Path, read_parquet: Callable[[Path], list[dict[str, Any]]]) -> None:
    data = evaluated_by_source
    metrics = json.loads((data / "eval/metrics.json").read_text())
    records, tokens = read_parquet(data / "eval/predictions.parquet"), TokenTable(data / "tokens")
    slots = {"train-00": range(6), "train-01/b.jsonl": range(6, 9), "train-01/c.jsonl": range(9, 10)}
    for name in ("base", "merged"):
        assert list(metrics[name]["sources"]) == list(slots)
        for slot, rows in slots.items():
            found = metrics[name]["sources"][slot]
            own = [record for record in records if record["model"] == name and record["row"] in rows]
            count = sum(int(tokens.mask(row).sum()) for row in rows)
            loss = math.fsum(record["loss"] * record["tokens"] for record in own) / count
            assert (found["rows"], found["tokens"]) == (len(rows), count)
            assert found["loss"] == pytest.approx(loss, abs=2e-6)
            assert found["perplexity"] == pytest.approx(math.exp(loss), rel=1e-5)
            assert found["loss_low"] <= found["loss"] <= found["loss_high"]
        whole = sum(found["loss"] * found["tokens"] for found in metrics[name]["sources"].values()) / metrics[name]["tokens"]
        assert metrics[name]["loss"] == pytest.approx(whole, abs=2e-6)
    versus = metrics["merged"]["sources"]["train-00"]["vs_base"]
    change = metrics["merged"]["sources"]["train-00"]["loss"] - metrics["base"]["sources"]["train-00"]["loss"]
    assert versus["loss_change"] == pytest.approx(change, abs=2e-6)
    assert versus["loss_change_low"] <= versus["loss_change"] <= versus["loss_change_high"] < 0


def test_the_report_has_the_sources_and_their_digests(evaluated_by_source: Path) -> None:
    html = (evaluated_by_source / "eval/report.html").read_text()
    assert "Loss on the rows of each source" in html and "./c.jsonl" in html
    assert all(f"{number}" * 64 in html for number in range(3))


def test_one_source_is_no_table(metrics: Any, evaluated: Path) -> None:
    assert "sources" not in metrics["merged"]
    assert "Loss on the rows of each source" not in (evaluated / "report.html").read_text()

"""Models that judge: rewards of pairs and judgements of steps, in batches as one by one, and how certain the result is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForSequenceClassification, LlamaForTokenClassification

from pipeline.tokens import TokenWriter, id_dtype
from stages.eval import STAGE
from tests.eval.workspace import drop_quantized, replace
from tests.tiny import publish_artifact, publish_bins, run_stage

Reader = Callable[[Path], list[dict[str, Any]]]
ROWS = 12


def save_judge(folder: Path, kind: Any, labels: int, pad: int | None = 0) -> None:
    torch.manual_seed(3)
    sizes: dict[str, Any] = {
        "vocab_size": 259,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    sizes |= {"num_attention_heads": 2, "num_labels": labels, "pad_token_id": pad}
    kind(LlamaConfig(**sizes)).save_pretrained(folder)


def publish_judge(data: Path, kind: Any, labels: int, pad: int | None = 0) -> None:
    replace(data, "merged", lambda: publish_artifact(data, "merged", lambda folder: save_judge(folder, kind, labels, pad)))


def publish_rows(data: Path, *, paired: bool) -> list[tuple[Any, ...]]:
    """Pairs of answers, or texts with a label at every fourth token; of different lengths."""
    generator = np.random.default_rng(0)
    made: list[tuple[Any, ...]] = []

    def fill(folder: Path) -> None:
        with TokenWriter(folder, id_dtype(259)) as writer:
            for number in range(ROWS):
                ids = generator.integers(3, 259, 6 + number)
                other, labels = generator.integers(3, 259, 15 - number), (np.arange((len(ids) + 3) // 4) % 3 > 0).astype(np.int8)
                mask = (np.arange(len(ids)) % 4 == 0).astype(np.uint8)
                rejected = (other, np.ones_like(other)) if paired else None
                writer.add(ids, mask, 0, number, rejected, None if paired else labels)
                made.append((ids, other, mask, labels))

    source = {"name": "train-00", "split": "train", "path": "./pairs.jsonl", "file": "pairs.jsonl", "rows": ROWS}
    replace(data, "tokens", lambda: publish_artifact(data, "tokens", fill, sources=[source]))
    replace(data, "packed", lambda: publish_bins(data, [[0, 1]], [[row] for row in range(2, ROWS)]))
    return made[2:]


@pytest.fixture
def data(workspace: Path, copy: Path) -> Path:
    drop_quantized(copy / "data")
    return copy / "data"


@pytest.mark.parametrize("pad", [0, None])
def test_rewards_of_pairs(data: Path, pad: int | None, read_parquet: Reader) -> None:
    rows = publish_rows(data, paired=True)
    replace(
        data, "merged", lambda: publish_artifact(data, "merged", lambda folder: save_judge(folder, LlamaForSequenceClassification, 1, pad))
    )
    _, returned = run_stage(STAGE, data.parent, {"eval": {"batch_size": 4}})
    model = LlamaForSequenceClassification.from_pretrained(data / "merged").eval()  # type: ignore[no-untyped-call]
    records = read_parquet(data / "eval/predictions.parquet")
    for record, (ids, other, _, _) in zip(records, rows, strict=True):
        with torch.no_grad():
            better, worse = (float(model(torch.tensor(text)[None]).logits[0, 0]) for text in (ids, other))
        assert (record["chosen_reward"], record["rejected_reward"]) == pytest.approx((better, worse), abs=1e-5)
        assert record["correct"] == (better > worse)
    metrics = json.loads((data / "eval/metrics.json").read_text())
    found = metrics["merged"]
    assert found["pairs"] == 10 and found["accuracy"] == returned["merged"]["accuracy"] == np.mean(
        [record["correct"] for record in records]
    )
    assert found["margin"] == pytest.approx(np.mean([r["chosen_reward"] - r["rejected_reward"] for r in records]), abs=1e-5)
    assert found["margin_low"] <= found["margin"] <= found["margin_high"]
    assert "base" not in metrics and "held-out pairs; chance is 0.50" in returned["verdict"]
    html = (data / "eval/report.html").read_text()
    assert returned["verdict"] in html and "Judgements of the held-out rows" in html


def test_judgements_of_steps_and_of_an_unchanged_model_only_once(data: Path, read_parquet: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = publish_rows(data, paired=False)
    publish_judge(data, LlamaForTokenClassification, 2)
    _, returned = run_stage(STAGE, data.parent)
    model = LlamaForTokenClassification.from_pretrained(data / "merged").eval()  # type: ignore[no-untyped-call]
    expected = []
    for ids, _, mask, labels in rows:
        with torch.no_grad():
            scores = model(torch.tensor(ids)[None]).logits[0].softmax(-1)[:, 1].numpy()[mask == 1]
        expected += list(zip(labels.tolist(), scores.tolist(), strict=True))
    records = read_parquet(data / "eval/predictions.parquet")
    assert [record["label"] for record in records] == [label for label, _ in expected]
    assert [record["score"] for record in records] == pytest.approx([score for _, score in expected], abs=1e-5)
    found = json.loads((data / "eval/metrics.json").read_text())["merged"]
    assert found["steps"] == len(expected)
    assert found["accuracy"] == pytest.approx(np.mean([(score > 0.5) == label for label, score in expected]), abs=1e-6)
    assert found["majority_share"] == pytest.approx(np.mean([label for label, _ in expected]), abs=1e-6)
    assert "held-out steps rightly" in returned["verdict"]
    before = {path.name: path.read_bytes() for path in (data / "eval").iterdir()}
    from stages.eval import subjects

    monkeypatch.setattr(subjects, "open_model", None)
    run_stage(STAGE, data.parent)
    assert {path.name: path.read_bytes() for path in (data / "eval").iterdir()} == before


def test_no_pair_is_held_out(data: Path) -> None:
    publish_rows(data, paired=True)
    replace(data, "packed", lambda: publish_bins(data, [[0, 1]]))
    publish_judge(data, LlamaForSequenceClassification, 1)
    _, returned = run_stage(STAGE, data.parent)
    assert "no row is held out" in returned["verdict"]

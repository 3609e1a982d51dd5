"""Every number against one computed the slow way: one row at a time, full logits, plain Python sums."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from pipeline.bins import Bins
from pipeline.tokens import TokenTable
from tests.eval.workspace import open_tokenizer

Reader = Callable[[Path], list[dict[str, Any]]]


def open_golden(data: Path, name: str) -> Any:
    """A model, opened without the stage; q8_0 is made from the merged weights by its definition."""
    model = AutoModelForCausalLM.from_pretrained(data / ("base" if name == "base" else "merged"), dtype=torch.float32)
    if name == "q8_0":
        with torch.no_grad():
            for weight in {id(weight): weight for weight in model.parameters() if weight.ndim == 2}.values():
                weight.copy_(q8_0(weight))
    model.eval()  # type: ignore[no-untyped-call]
    return model


def q8_0(weight: torch.Tensor) -> torch.Tensor:
    """Blocks of 32 with a float16 scale: the largest magnitude becomes 127."""
    blocks = weight.reshape(-1, 32)
    scale = blocks.abs().amax(1, keepdim=True) / 127
    return ((blocks / scale).round() * scale.half().float()).reshape(weight.shape)


def judge_slowly(data: Path, name: str) -> list[dict[str, Any]]:
    """Per held-out row: log likelihoods and hits of its trained tokens, and whether "yes" or "no" is likelier at the first."""
    model, tokens, bins = open_golden(data, name), TokenTable(data / "tokens"), Bins.load(data / "packed" / "eval.arrow")
    yes, no = (open_tokenizer(data).encode(text)[0] for text in ("yes", "no"))
    judged = []
    for row in bins.row.tolist():
        ids, mask = tokens.ids(row).tolist(), tokens.mask(row).tolist()
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0].double()
        trained = [position for position in range(1, len(ids)) if mask[position]]
        nll = [float(torch.logsumexp(logits[p - 1], 0) - logits[p - 1, ids[p]]) for p in trained]
        hits = [int(logits[p - 1].argmax()) == ids[p] for p in trained]
        before = logits[trained[0] - 1]
        judged.append(
            {"nll": nll, "hits": hits, "choice": "yes" if before[yes] > before[no] else "no", "answer": ids[trained[0]], "yes": yes}
        )
    return judged


@pytest.mark.parametrize("name", ["base", "merged", "q8_0"])
def test_metrics_are_those_of_a_plain_loop(name: str, workspace: Path, metrics: Any) -> None:
    rows = judge_slowly(workspace / "data", name)
    nll = [value for row in rows for value in row["nll"]]
    loss = math.fsum(nll) / len(nll)
    found = metrics[name]
    assert (found["rows"], found["tokens"]) == (10, len(nll))
    assert found["loss"] == pytest.approx(loss, abs=2e-5)
    assert found["perplexity"] == pytest.approx(math.exp(loss), rel=1e-4)
    assert found["token_accuracy"] == pytest.approx(sum(hit for row in rows for hit in row["hits"]) / len(nll), abs=1e-6)
    assert found["exact_match"] == sum(all(row["hits"]) for row in rows) / 10
    assert found["accuracy"] == sum((row["choice"] == "yes") == (row["answer"] == row["yes"]) for row in rows) / 10


def test_every_row_is_recorded_with_its_origin(workspace: Path, evaluated: Path, read_parquet: Reader) -> None:
    records = read_parquet(evaluated / "predictions.parquet")
    assert [record["model"] for record in records] == [name for name in ("base", "merged", "int8", "q8_0") for _ in range(10)]
    for record, row in zip(records[10:20], judge_slowly(workspace / "data", "merged"), strict=True):
        assert (record["source"], record["file"], record["tokens"]) == ("train-00", "rows.jsonl", len(row["nll"]))
        assert record["loss"] == pytest.approx(np.mean(row["nll"]), abs=2e-5)
        assert record["choice"] == row["choice"]
    assert [record["row"] for record in records[:10]] == list(range(10))


def test_intervals_hold_their_values_and_the_tuned_model_is_better(metrics: Any) -> None:
    for name in ("base", "merged", "int8", "q8_0"):
        for measure in ("loss", "accuracy", "exact_match"):
            assert metrics[name][f"{measure}_low"] <= metrics[name][measure] <= metrics[name][f"{measure}_high"]
    versus = metrics["merged"]["vs_base"]
    assert versus["gained"] - versus["lost"] == round(10 * (metrics["merged"]["accuracy"] - metrics["base"]["accuracy"]))
    assert versus["loss_change"] == pytest.approx(metrics["merged"]["loss"] - metrics["base"]["loss"], abs=2e-6)
    assert versus["loss_change_low"] <= versus["loss_change"] <= versus["loss_change_high"] < 0
    assert "vs_base" not in metrics["base"]


def test_int8_is_judged_as_stored(evaluated: Path, read_parquet: Reader) -> None:
    records = read_parquet(evaluated / "predictions.parquet")
    merged, int8 = ([record["loss"] for record in records if record["model"] == name] for name in ("merged", "int8"))
    assert int8 != merged
    assert int8 == pytest.approx(merged, abs=0.05)


def test_held_out_counts(metrics: Any) -> None:
    assert metrics["held_out"] == {"rows": 10, "tokens": 5 * (3 + 4), "majority_share": 0.5}


def test_samples_are_what_a_plain_greedy_loop_says(workspace: Path, evaluated: Path, read_jsonl: Reader) -> None:
    data, tokenizer = workspace / "data", open_tokenizer(workspace / "data")
    samples = read_jsonl(evaluated / "samples.jsonl")
    assert [sample["reference"] for sample in samples] == ["no", "yes", "no"]
    assert samples[1]["prompt"] == "<|im_start|>user\nis 1 odd" + "?" * 7 + "<|im_end|>\n<|im_start|>assistant\n"
    for name in ("base", "merged"):
        model = open_golden(data, name)
        for sample in samples:
            text, ended = answer_slowly(model, tokenizer, sample["prompt"])
            assert sample["answers"][name] == {"text": text, "ended": ended, "matches": text.strip() == sample["reference"]}
    assert all(sample["answers"]["merged"]["matches"] and sample["answers"]["merged"]["ended"] for sample in samples)


def answer_slowly(model: Any, tokenizer: Any, prompt: str) -> tuple[str, bool]:
    ids: list[int] = tokenizer.encode(prompt, add_special_tokens=False)
    new: list[int] = []
    while len(new) < 6:
        with torch.no_grad():
            new.append(int(model(torch.tensor([ids + new])).logits[0, -1].argmax()))
        if new[-1] == tokenizer.eos_token_id:
            return tokenizer.decode(new[:-1]), True
    return tokenizer.decode(new), False


def test_sizes_stand_beside_what_they_cost(workspace: Path, evaluated: Path, metrics: Any) -> None:
    merged, q8_0 = metrics["merged"], metrics["q8_0"]
    assert merged["weights_bytes"] == (workspace / "data/merged/model.safetensors").stat().st_size
    assert q8_0["weights_bytes"] == (workspace / "data/quantized/q8_0/model.gguf").stat().st_size
    assert q8_0["perplexity_ratio"] == pytest.approx(q8_0["perplexity"] / merged["perplexity"], abs=2e-6)
    assert "perplexity_ratio" not in merged and "perplexity_ratio" not in metrics["base"]
    head, *lines = (evaluated / "sizes.csv").read_text().splitlines()
    assert head == "model,weights_bytes,perplexity,perplexity_ratio"
    assert lines[1].split(",") == ["merged", str(merged["weights_bytes"]), str(merged["perplexity"]), ""]
    assert "Size and perplexity" in (evaluated / "report.html").read_text()

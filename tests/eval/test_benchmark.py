"""Multiple choice: rows of every shape, one letter per question, accuracy by subject, all against a plain loop."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.errors import RegrowError
from pipeline.models import load_causal_lm
from stages.eval import STAGE
from tests.eval.workspace import drop_quantized, open_tokenizer, replace
from tests.tiny import publish_artifact, run_stage

Reader = Callable[[Path], list[dict[str, Any]]]

MMLU: list[dict[str, Any]] = [
    {"question": f"What is {number} plus 1?", "choices": [str(number + shift) for shift in (1, 2, 3, 4)], "answer": 0, "subject": subject}
    for number, subject in enumerate(["sums", "sums", "letters", "letters", "sums"])
]
ARC: list[dict[str, Any]] = [
    {"question": "Which is hot?", "choices": {"text": ["ice", "fire", "snow"], "label": ["1", "2", "3"]}, "answerKey": "2"},
    {"question": "Which is wet? ", "choices": {"text": ["rain", "sand"], "label": ["A", "B"]}, "answerKey": "A"},
]
WHOLE = [{"input": "Is it so?\nA. no\nB. yes\nC. maybe\nAnswer: ", "output": letter, "name": "so"} for letter in "ACB"]


def publish_benchmark(data: Path, rows: Sequence[Mapping[str, Any]], numbers: bytes | None = None) -> None:
    def fill(folder: Path) -> None:
        (folder / "bench").mkdir()
        (folder / "bench/00000.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        if numbers is not None:
            (folder / "bench/00000.numbers").write_bytes(numbers)

    facts = {"name": "bench", "split": "bench", "path": "./exam.jsonl", "file": "exam.jsonl", "rows_file": "bench/00000.jsonl"}
    source = facts | {"numbers": None if numbers is None else "bench/00000.numbers", "revision": None}
    replace(data, "benchmark", lambda: publish_artifact(data, "benchmark", fill, sources=[source]))
    drop_quantized(data)


def prompts_of(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Prompt and letters of MMLU's and ARC's rows, spelt out."""
    found = []
    for row in rows:
        texts = row["choices"]["text"] if isinstance(row["choices"], dict) else row["choices"]
        letters = "ABCD"[: len(texts)]
        lines = [row["question"].strip(), *(f"{letter}. {text}" for letter, text in zip(letters, texts, strict=True)), "Answer:"]
        found.append(("\n".join(lines), letters))
    return found


def choose_slowly(data: Path, name: str, prompts: Sequence[tuple[str, str]]) -> list[str]:
    model, tokenizer = load_causal_lm(data / name), open_tokenizer(data)
    chosen = []
    for prompt, letters in prompts:
        with torch.no_grad():
            logits = model(torch.tensor([tokenizer.encode(prompt + " ")])).logits[0, -1]
        chosen.append(max(letters, key=lambda letter: float(logits[tokenizer.encode(letter)[0]])))
    return chosen


def test_each_model_chooses_the_letter_it_finds_likeliest(copy: Path, read_parquet: Reader) -> None:
    rows = [*MMLU, *ARC]
    publish_benchmark(copy / "data", rows)
    _, returned = run_stage(STAGE, copy, {"eval": {"samples": 0, "batch_size": 2}})
    records = read_parquet(copy / "data/eval/benchmark.parquet")
    metrics = json.loads((copy / "data/eval/metrics.json").read_text())
    right = ["A"] * 5 + ["B", "A"]
    assert metrics["benchmark"] == {"name": "./exam.jsonl", "questions": 7, "majority_share": round(6 / 7, 6)}
    for name in ("base", "merged"):
        own = [record for record in records if record["model"] == name]
        chosen = choose_slowly(copy / "data", name, prompts_of(rows))
        assert [record["chosen"] for record in own] == chosen
        assert [record["right"] for record in own] == right
        correct = [given == letter for given, letter in zip(chosen, right, strict=True)]
        assert [record["correct"] for record in own] == correct
        found = metrics[name]["benchmark"]
        assert found["accuracy"] == returned[name]["benchmark_accuracy"] == round(sum(correct) / 7, 6)
        assert found["accuracy_low"] <= found["accuracy"] <= found["accuracy_high"]
        assert found["subjects"]["sums"]["accuracy"] == round((correct[0] + correct[1] + correct[4]) / 3, 6)
        assert {subject: part["questions"] for subject, part in found["subjects"].items()} == {"(none)": 2, "letters": 2, "sums": 3}
    assert set(metrics["merged"]["benchmark"]["vs_base"]) == {"gained", "lost", "p_value"}
    html = (copy / "data/eval/report.html").read_text()
    assert "Benchmark: ./exam.jsonl" in html and "Accuracy by subject" in html
    plot = (copy / "data/eval/benchmark.csv").read_text().splitlines()
    assert plot[0] == "model,measure,value,low,high" and plot[1].startswith(f"base,accuracy,{metrics['base']['benchmark']['accuracy']},")


def test_whole_prompts_have_as_many_letters_as_the_answers_use(nothing_held_out: Path, read_parquet: Reader) -> None:
    data = nothing_held_out / "data"
    publish_benchmark(data, WHOLE, numbers=b"".join(number.to_bytes(8, "little") for number in (4, 7, 9)))
    _, returned = run_stage(STAGE, nothing_held_out, {"eval": {"samples": 2}})
    records = [record for record in read_parquet(data / "eval/benchmark.parquet") if record["model"] == "base"]
    assert [(record["row"], record["right"], record["subject"]) for record in records] == [(4, "A", "so"), (7, "C", "so"), (9, "B", "so")]
    assert len({record["chosen"] for record in records}) == 1
    prompt = WHOLE[0]["input"].rstrip()
    assert records[0]["chosen"] == choose_slowly(data, "base", [(prompt, "ABC")])[0]
    assert "on 3 questions of the benchmark" in returned["verdict"]
    html = (data / "eval/report.html").read_text()
    assert returned["verdict"] in html and "Held-out loss" not in html and "Accuracy by subject" not in html


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"question": "x", "choices": ["a", "b"], "answer": 2}, "answer 2 is none of 2"),
        ({"question": "x", "choices": ["a", "b"], "answer": "C"}, "'C' is not in list"),
        ({"question": "x", "choices": ["a", "b"]}, "no 'answer'"),
        ({"question": "x", "choices": ["a"], "answer": 0}, "it has 1 choices"),
        ({"text": "x"}, "no 'choices'"),
        ([1], "has no attribute"),
        ({"input": "x", "output": "yes"}, "'yes' is not in list"),
        ({"question": 5, "choices": ["a", "b"], "answer": 0}, "has no attribute"),
        ({"question": "x", "choices": ["a", "b"], "answer": True}, "answer True"),
    ],
)
def test_rows_that_are_no_questions_are_named(row: Any, words: str, copy: Path) -> None:
    publish_benchmark(copy / "data", [MMLU[0], row])
    with pytest.raises(RegrowError) as refused:
        run_stage(STAGE, copy)
    assert f"bench_dataset: exam.jsonl, row 1 is no question: {words}" in str(refused.value) or words in str(refused.value)
    assert "row 1" in str(refused.value) and "Rows need question, choices and answer" in str(refused.value)


def test_a_changed_question_asks_the_benchmark_again_and_nothing_else(copy: Path) -> None:
    publish_benchmark(copy / "data", MMLU)
    run_stage(STAGE, copy, {"eval": {"samples": 1, "max_new_tokens": 2}})
    cache = copy / ".regrow/cache/eval"
    before = {path.name for path in cache.iterdir()}
    publish_benchmark(copy / "data", [MMLU[0] | {"question": "What else?"}, *MMLU[1:]])
    run_stage(STAGE, copy, {"eval": {"samples": 1, "max_new_tokens": 2}})
    new = {path.name for path in cache.iterdir()} - before
    assert len(new) == 2 and all(name.startswith("benchmark-") for name in new)

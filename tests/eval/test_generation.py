"""Answers to every trained turn: aligned with the data's, the same in a batch as alone, scored as sacrebleu scores them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.errors import MissingExtra
from pipeline.models import load_causal_lm
from pipeline.progress import Progress
from stages.eval import STAGE
from stages.eval.answers import find_ending
from stages.eval.generate import Ending, generate
from stages.eval.rows import HeldOutRow
from stages.eval.text_metrics import compare_texts
from tests.eval.workspace import END, Row, chat_row, drop_quantized, make_workspace, open_tokenizer, replace
from tests.tiny import publish_bins, run_stage, save_model

PLAIN = {
    "do_causal_lm_eval": True,
    "eval_causal_lm_metrics": ["perplexity"],
    "eval_max_new_tokens": 11,
    "eval": {"samples": 0, "batch_size": 4},
}


def dialogues(tokenizer: Any) -> list[Row]:
    """Rows of one to three exchanges; all answers are trained."""
    rows: list[Row] = []
    for number in range(6):
        turns = [chat_row(tokenizer, f"say {number}{'!' * turn}", f"it is {number} {turn}") for turn in range(1 + number % 3)]
        rows.append(([i for ids, _ in turns for i in ids], [m for _, mask in turns for m in mask]))
    return rows


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = make_workspace(tmp_path_factory.mktemp("dialogues"), dialogues, held_out=5)
    drop_quantized(made / "data")
    return made


@pytest.fixture(scope="module")
def generated(workspace: Path) -> Path:
    run_stage(STAGE, workspace, PLAIN)
    return workspace / "data/eval"


def test_every_turn_has_its_true_prompt_its_reference_and_the_answer_of_the_model_alone(
    workspace: Path, generated: Path, read_parquet: Callable[[Path], list[dict[str, Any]]]
) -> None:
    data, tokenizer = workspace / "data", open_tokenizer(workspace / "data")
    records = read_parquet(generated / "generations.parquet")
    places = [(number, turn) for number in range(5) for turn in range(1 + number % 3)]
    assert [(record["row"], record["turn"]) for record in records if record["model"] == "merged"] == places
    for name in ("base", "merged"):
        model = load_causal_lm(data / name)
        for record in (record for record in records if record["model"] == name):
            assert record["prompt"].count("<|im_start|>assistant") == record["turn"] + 1
            assert record["prompt"].endswith(f"say {record['row']}{'!' * record['turn']}<|im_end|>\n<|im_start|>assistant\n")
            assert record["reference"] == f"it is {record['row']} {record['turn']}"
            text, ended = greedily(model, tokenizer, record["prompt"], 11)
            assert (record["answer"], record["ended"]) == (text, ended)


def greedily(model: Any, tokenizer: Any, prompt: str, limit: int) -> tuple[str, bool]:
    ids: list[int] = tokenizer.encode(prompt, add_special_tokens=False)
    new: list[int] = []
    while len(new) < limit:
        with torch.no_grad():
            new.append(int(model(torch.tensor([ids + new])).logits[0, -1].argmax()))
        if new[-1] == END:
            return tokenizer.decode(new[:-1], skip_special_tokens=True), True
    return tokenizer.decode(new, skip_special_tokens=True), False


def test_scores_say_how_many_read_the_same_and_how_likely_the_references_are(
    generated: Path, read_parquet: Callable[[Path], list[dict[str, Any]]]
) -> None:
    metrics = json.loads((generated / "metrics.json").read_text())
    for name in ("base", "merged"):
        records = [record for record in read_parquet(generated / "generations.parquet") if record["model"] == name]
        same = np.mean([record["answer"].strip() == record["reference"] for record in records])
        expected = {"turns": 9, "same": round(float(same), 6), "perplexity": metrics[name]["perplexity"]}
        assert metrics[name]["generation"] == expected
        assert (same > 0) == (name != "base")
    assert "Answers to every trained turn" in (generated / "report.html").read_text()


def test_texts_are_scored_as_the_package_scores_a_corpus(
    workspace: Path, generated: Path, read_parquet: Callable[[Path], list[dict[str, Any]]]
) -> None:
    sacrebleu = pytest.importorskip("sacrebleu", reason="an extra of regrow")
    _, returned = run_stage(STAGE, workspace, PLAIN | {"eval_causal_lm_metrics": None})
    records = read_parquet(workspace / "data/eval/generations.parquet")
    metrics = json.loads((workspace / "data/eval/metrics.json").read_text())
    for name in ("base", "merged"):
        answers, references = zip(*((r["answer"], r["reference"]) for r in records if r["model"] == name), strict=True)
        found = metrics[name]["generation"]
        for metric, score in (("sacrebleu", sacrebleu.corpus_bleu), ("chrf", sacrebleu.corpus_chrf), ("ter", sacrebleu.corpus_ter)):
            assert found[metric] == pytest.approx(score(list(answers), [list(references)]).score, abs=1e-5)
            assert returned[name][metric] == found[metric]
            assert (f"{metric}_p_value" in found) == (name != "base")
        assert "perplexity" in found
    assert metrics["merged"]["generation"]["chrf"] > metrics["base"]["generation"]["chrf"]
    assert metrics["merged"]["generation"]["chrf_p_value"] < 0.05
    run_stage(STAGE, workspace, PLAIN)  # as the other tests of this module expect it


def test_equal_scores_are_no_difference() -> None:
    pytest.importorskip("sacrebleu", reason="an extra of regrow")
    found = compare_texts({"base": ["no", "yes"], "merged": ["yes", "yes"]}, ["yes", "yes"], ["sacrebleu", "chrf"])
    assert found["merged"]["sacrebleu"] == found["base"]["sacrebleu"] == 0  # one word has no run of four
    assert found["merged"]["sacrebleu_p_value"] == 1
    assert found["merged"]["chrf"] > found["base"]["chrf"]


def test_without_the_package_it_is_named_before_a_model_is_opened(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stages.eval import text_metrics

    monkeypatch.setattr(text_metrics, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"ter needs the package 'sacrebleu'[^$]*pip install 'regrow\[sacrebleu\]'"):
        run_stage(STAGE, workspace, PLAIN | {"eval_causal_lm_metrics": ["perplexity", "ter"]})


def test_rows_that_share_a_bin_are_answered_one_by_one(
    workspace: Path, generated: Path, read_parquet: Callable[[Path], list[dict[str, Any]]]
) -> None:
    alone = read_parquet(generated / "generations.parquet")
    replace(workspace / "data", "packed", lambda: publish_bins(workspace / "data", [[5]], [[0, 1, 2], [3, 4]]))
    run_stage(STAGE, workspace, PLAIN)
    assert read_parquet(workspace / "data/eval/generations.parquet") == alone


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("model")
    save_model(folder, max_position_embeddings=24)
    return load_causal_lm(folder)


def answers_of(model: Any, prompts: Sequence[np.ndarray], batch_size: int, limit: int, ends: tuple[int, ...] = (2,)) -> list[Any]:
    with Progress().task("x") as task:
        found = generate(model, prompts, Ending(ends, 0), batch_size, limit, task)
    return [(answer.ids.tolist(), answer.ended) for answer in found]


def test_a_batch_answers_as_generate_does_for_each_alone(model: Any) -> None:
    generator = np.random.default_rng(0)
    prompts = [generator.integers(3, 259, length) for length in (1, 9, 4, 13, 2, 9, 5)]
    alone = []
    for prompt in prompts:
        out = model.generate(torch.tensor(prompt)[None], do_sample=False, max_new_tokens=8, eos_token_id=2, pad_token_id=0)[
            0, len(prompt) :
        ]
        alone.append((out.tolist(), False))
    assert answers_of(model, prompts, 7, 8) == alone
    assert answers_of(model, prompts, 3, 8) == alone


def test_a_long_prompt_shortens_its_own_answer_alone(model: Any) -> None:
    """The model reads 24 tokens: what a prompt leaves of them is its own matter, whatever is in the batch."""
    generator = np.random.default_rng(1)
    prompts = [generator.integers(3, 259, length) for length in (4, 21, 24, 30, 6)]
    together = answers_of(model, prompts, 5, 8)
    assert [len(ids) for ids, _ in together] == [8, 3, 0, 0, 8]
    assert together == [answer for prompt in prompts for answer in answers_of(model, [prompt], 1, 8)]


def test_an_answer_ends_at_any_of_the_end_tokens(model: Any) -> None:
    prompt = np.array([50, 60, 70])
    ((ids, _),) = answers_of(model, [prompt], 1, 8)
    first = ids.index(ids[3])
    assert answers_of(model, [prompt], 1, 8, ends=(2, ids[3])) == [(ids[:first], True)]


def test_special_tokens_that_only_end_turns_end_answers(tmp_path: Path, workspace: Path) -> None:
    tokenizer = open_tokenizer(workspace / "data")
    endoftext, im_start = (tokenizer.convert_tokens_to_ids(token) for token in ("<|endoftext|>", "<|im_start|>"))

    def row(*answer: int) -> HeldOutRow:
        return HeldOutRow(np.array([40, 41, *answer]), np.array([False, False, *[True] * len(answer)]), 0, 0)

    assert find_ending([row(50, 51, 2)], tokenizer).ids == (2,)
    assert find_ending([row(50, 51)], tokenizer).ids == (2,)
    assert find_ending([row(50, endoftext), row(51, 2)], tokenizer).ids == (2, endoftext)
    assert find_ending([row(50, im_start), row(im_start, 51, 2)], tokenizer).ids == (2,)

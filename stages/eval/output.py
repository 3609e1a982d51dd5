"""Everything in data/eval besides the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.digest import canonical_json
from stages.eval.exam import Exam
from stages.eval.extras import answer_texts, reference_texts, score_answers, score_benchmark, score_sizes
from stages.eval.generate import Generated
from stages.eval.judge import Judgement
from stages.eval.records import (
    GENERATIONS,
    PREDICTIONS,
    QUESTIONS,
    generation_records,
    prediction_records,
    question_records,
    write_parquet,
    write_plot,
    write_table,
)
from stages.eval.scores import Scores, rounded, score_models
from stages.eval.tasks import read_answers, read_judgement

Found = Mapping[str, Mapping[str, Any]]
"""By task, then by model: the result, as JSON values."""


@dataclass(frozen=True)
class Outcome:
    """What came of the exam.

    Attributes:
        seed: of the bootstrap.
    """

    exam: Exam
    found: Found
    seed: int

    @cached_property
    def judgements(self) -> dict[str, Judgement]:
        """What each model made of the held-out rows; empty without any."""
        return {name: read_judgement(result) for name, result in self.found.get("loss", {}).items()}

    def answers(self, task: str) -> dict[str, list[Generated]]:
        """What each model answered when it was asked ``task``; empty if it was not."""
        return {name: read_answers(result) for name, result in self.found.get(task, {}).items()}

    @cached_property
    def chosen(self) -> dict[str, np.ndarray]:
        """The letters each model chose, int64 ``[questions]``."""
        return {name: np.array(letters, np.int64) for name, letters in self.found.get("benchmark", {}).items()}

    @cached_property
    def texts(self) -> dict[str, list[str]]:
        """Each model's answers to all turns."""
        return {name: answer_texts(given, self.exam.held_out.tokenizer) for name, given in self.answers("generation").items()}

    @cached_property
    def references(self) -> list[str]:
        """The data's."""
        held_out = self.exam.held_out
        return reference_texts(held_out.turns, held_out.tokenizer, held_out.ending)

    @cached_property
    def scores(self) -> dict[str, Scores]:
        """Of the held-out rows, by model; empty without any."""
        return score_models(self.judgements, self.exam.held_out, self.seed) if self.judgements else {}

    @cached_property
    def more(self) -> dict[str, dict[str, Scores]]:
        """``benchmark``, ``generation`` and ``lm_eval``, as far as they were asked for; each by model."""
        more: dict[str, dict[str, Scores]] = {}
        if self.exam.benchmark is not None:
            more["benchmark"] = score_benchmark(self.chosen, self.exam.benchmark)
        if self.exam.generates:
            more["generation"] = score_answers(self.texts, self.references, self.exam.metrics, self.scores)
        if self.exam.harness is not None:
            more["lm_eval"] = {name: rounded(result) for name, result in self.found["lm-eval"].items()}
        return more


def write_metrics(folder: Path, outcome: Outcome) -> None:
    """``metrics.json``."""
    exam, scores, more = outcome.exam, outcome.scores, outcome.more
    facts: dict[str, Any] = {"held_out": exam.held_out.facts()}
    if scores or more:
        for name, size in score_sizes(exam.subjects, scores).items():
            facts[name] = {**scores.get(name, {}), **size, **{kind: found[name] for kind, found in more.items()}}
    if exam.benchmark is not None:
        facts["benchmark"] = exam.benchmark_facts()
    if exam.harness is not None:
        facts["lm_eval"] = {"version": exam.harness.facts()["lm_eval"]}
    (folder / "metrics.json").write_text(canonical_json(facts), encoding="utf-8")


def write_plots(folder: Path, outcome: Outcome) -> None:
    """A CSV for every plot of `dvc plots`."""
    scores, subjects = outcome.scores, outcome.exam.subjects
    write_plot(folder / "accuracy.csv", scores, outcome.exam.held_out.measure)
    write_plot(folder / "held_out_loss.csv", scores, "loss")
    if scores and len(subjects) > 2:
        sizes = score_sizes(subjects, scores)
        lines = [{"model": name, **size, "perplexity": scores[name]["perplexity"]} for name, size in sizes.items()]
        write_table(folder / "sizes.csv", lines)
    if "benchmark" in outcome.more:
        write_plot(folder / "benchmark.csv", outcome.more["benchmark"], "accuracy")


def write_records(folder: Path, outcome: Outcome) -> None:
    """What each model made of each row, turn and question."""
    held_out, benchmark = outcome.exam.held_out, outcome.exam.benchmark
    predictions = (record for name, judgement in outcome.judgements.items() for record in prediction_records(name, judgement, held_out))
    write_parquet(folder / "predictions.parquet", PREDICTIONS, predictions)
    if outcome.exam.generates:
        given, texts, references = outcome.answers("generation"), outcome.texts, outcome.references
        answers = (record for name in given for record in generation_records(name, given[name], texts[name], references, held_out))
        write_parquet(folder / "generations.parquet", GENERATIONS, answers)
    if benchmark is not None:
        questions = (record for name, letters in outcome.chosen.items() for record in question_records(name, letters, benchmark))
        write_parquet(folder / "benchmark.parquet", QUESTIONS, questions)

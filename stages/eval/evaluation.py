"""The order of things: open the rows, judge each model, score, write."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.digest import canonical_json
from pipeline.options.views import EvalOptions
from pipeline.stage import Job, Metrics
from stages.eval.answers import Answer, answer
from stages.eval.held_out import HeldOut, open_held_out
from stages.eval.judge import Judgement, judge
from stages.eval.records import prediction_records, sample_records, write_jsonl, write_plot
from stages.eval.report import Findings, write_report
from stages.eval.scores import Scores, check_finite, score_models
from stages.eval.subjects import Subject, find_subjects, open_subject
from stages.eval.verdict import verdict


def evaluate(job: Job[EvalOptions]) -> Metrics:
    """Fill data/eval; returns the main scores of every model."""
    held_out, subjects = open_held_out(job), find_subjects(job.inputs)
    judgements: dict[str, Judgement] = {}
    answers: dict[str, list[Answer]] = {}
    for subject in subjects if held_out.rows else []:
        judgements[subject.name], answers[subject.name] = _judge_subject(job, subject, held_out)
        gc.collect()  # a model holds itself in cycles, and the next one needs its memory
    scores = score_models(judgements, held_out, job.options.seed) if judgements else {}
    samples = sample_records(held_out, answers, job.options.eval.samples)
    _write_records(job, held_out, judgements, samples, scores)
    sizes = {subject.name: subject.size for subject in subjects}
    findings = Findings(
        verdict(scores, held_out.facts()), scores, held_out.measure, held_out.facts(), sizes, samples, job.options.eval.max_new_tokens
    )
    write_report(job.outputs["eval"].path / "report.html", findings, job.inputs)
    job.outputs["eval"].describe(verdict=findings.verdict, **held_out.facts())
    return _summary(findings)


def _judge_subject(job: Job[EvalOptions], subject: Subject, held_out: HeldOut) -> tuple[Judgement, list[Answer]]:
    options, rows = job.options.eval, held_out.rows
    model = open_subject(subject)
    with job.progress.task(f"judge {subject.name}", total=len(rows)) as task:
        judgement = judge(model, rows, options.batch_size, held_out.choices.ids if held_out.choices else None, task)
    check_finite(subject.name, judgement, held_out)
    asked = rows[: options.samples]
    with job.progress.task(f"ask {subject.name}", total=len(asked), unit="prompts") as task:
        return judgement, answer(model, asked, held_out.tokenizer, options.batch_size, options.max_new_tokens, task)


def _write_records(
    job: Job[EvalOptions],
    held_out: HeldOut,
    judgements: Mapping[str, Judgement],
    samples: Sequence[Mapping[str, Any]],
    scores: Mapping[str, Scores],
) -> None:
    folder = job.outputs["eval"].path
    (folder / "metrics.json").write_text(canonical_json({"held_out": held_out.facts(), **scores}), encoding="utf-8")
    predictions = (record for name, found in judgements.items() for record in prediction_records(name, found, held_out))
    write_jsonl(folder / "predictions.jsonl", predictions)
    write_jsonl(folder / "samples.jsonl", samples)
    write_plot(folder / "accuracy.csv", scores, held_out.measure)
    write_plot(folder / "held_out_loss.csv", scores, "loss")
    shutil.copyfile(job.inputs["trained"].path / "log.csv", folder / "loss.csv")


def _summary(findings: Findings) -> Metrics:
    measures = ("accuracy", "exact_match", "loss")
    models = {name: {measure: found[measure] for measure in measures if measure in found} for name, found in findings.scores.items()}
    return {"verdict": findings.verdict, "rows": findings.held_out["rows"], **models}

"""The order of things: open what is asked, ask each model what is not known yet, score, write."""

from __future__ import annotations

import shutil

from pipeline.models import judges
from pipeline.options.views import EvalOptions
from pipeline.stage import Job, Metrics
from stages.eval.exam import Exam, open_exam, tasks_of
from stages.eval.judges import evaluate_judges
from stages.eval.output import Found, Outcome, write_metrics, write_plots, write_records
from stages.eval.records import sample_records, write_jsonl
from stages.eval.report import Findings, write_report
from stages.eval.results import Results
from stages.eval.subjects import opened
from stages.eval.text_metrics import TEXT_METRICS
from stages.eval.verdict import answer, verdict


def evaluate(job: Job[EvalOptions]) -> Metrics:
    """Fill data/eval; returns the main scores of every model."""
    if judges(job.inputs["merged"].path) is not None:
        return evaluate_judges(job)
    exam, draft = open_exam(job), job.outputs["eval"]
    outcome = Outcome(exam, _ask_all(job, exam), job.options.seed)
    samples = sample_records(exam.held_out, outcome.answers("answers"), job.options.eval.samples)
    write_metrics(draft.path, outcome)
    write_plots(draft.path, outcome)
    write_records(draft.path, outcome)
    write_jsonl(draft.path / "samples.jsonl", samples)
    shutil.copyfile(job.inputs["trained"].path / "log.csv", draft.path / "loss.csv")
    facts, benchmark = exam.held_out.facts(), outcome.more.get("benchmark", {})
    findings = Findings(
        verdict=verdict(outcome.scores, facts, benchmark),
        answer=answer(outcome.scores, benchmark),
        scores=outcome.scores,
        measure=exam.held_out.measure,
        held_out=facts,
        subjects=exam.subjects,
        sources=dict(zip(exam.held_out.source_names, exam.held_out.sources, strict=True)),
        samples=samples,
        max_new_tokens=job.options.eval.max_new_tokens,
        benchmark=exam.benchmark_facts(),
        more=outcome.more,
    )
    write_report(draft.path / "report.html", findings, job.inputs)
    draft.describe(verdict=findings.verdict, **facts)
    return _summary(findings)


def _ask_all(job: Job[EvalOptions], exam: Exam) -> Found:
    """One model after another; a task whose result is known opens no model."""
    results, tasks = Results(job.cache), tasks_of(exam, job)
    found: dict[str, dict[str, object]] = {asked.task.name: {} for asked in tasks}
    for subject in exam.subjects:
        with opened(subject) as holder:
            for asked in tasks:
                # The lambda is called at once, with these values of the loops' variables.
                found[asked.task.name][subject.name] = results.get(asked.task, subject.digest, lambda: asked.do(holder))  # noqa: B023
    results.prune()
    return found


def _summary(findings: Findings) -> Metrics:
    measures = ("accuracy", "exact_match", "loss")
    models = {name: {measure: found[measure] for measure in measures if measure in found} for name, found in findings.scores.items()}
    for name, found in findings.more.get("benchmark", {}).items():
        models.setdefault(name, {})["benchmark_accuracy"] = found["accuracy"]
    for name, found in findings.more.get("generation", {}).items():
        models[name] |= {metric: found[metric] for metric in TEXT_METRICS if metric in found}
    return {"verdict": findings.verdict, "rows": findings.held_out["rows"], **models}

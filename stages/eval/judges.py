"""What eval does where data/merged judges text: the same as elsewhere, with one question for each model and no base."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.bins import Bins
from pipeline.digest import canonical_json
from pipeline.models import judges
from pipeline.options.views import EvalOptions
from pipeline.stage import Job, Metrics
from pipeline.tokens import TokenTable
from stages.eval.judging import Judged, judge_rows, load_judged, score_judgements
from stages.eval.records import ORIGIN, write_jsonl, write_parquet, write_plot
from stages.eval.report import Findings, write_report
from stages.eval.results import Results
from stages.eval.scores import Scores
from stages.eval.subjects import find_subjects, opened
from stages.eval.tasks import Asking

_PAIRS = pa.schema([*ORIGIN, ("chosen_reward", pa.float64()), ("rejected_reward", pa.float64()), ("correct", pa.bool_())])
_STEPS = pa.schema([*ORIGIN, ("step", pa.int64()), ("label", pa.int64()), ("score", pa.float64()), ("correct", pa.bool_())])


def evaluate_judges(job: Job[EvalOptions]) -> Metrics:
    """Fill data/eval with how well the merged model, and quantised ones that judge too, judge the held-out rows."""
    draft = job.outputs["eval"]
    rows = load_judged(TokenTable(job.inputs["tokens"].path), Bins.load(job.inputs["packed"].path / "eval.arrow"))
    subjects = [subject for subject in find_subjects(job.inputs) if judges(subject.folder) is not None]
    found: dict[str, list[list[float]]] = {}
    asking, results = Asking.of(job), Results(job.cache)
    for subject in subjects if rows else []:
        with opened(subject) as holder, job.progress.task(f"judge {subject.name}", total=len(rows)) as task:
            found[subject.name] = results.get(
                asking.task("judgements", rows=_digest(rows)),
                subject.digest,
                # Called at once, with these values of the loop's variables.
                lambda: judge_rows(subject.name, holder.model, rows, asking.batch_size, task),  # noqa: B023
            )
    results.prune()
    scores = score_judgements(found, rows, job.options.seed) if rows else {}
    facts = {"rows": len(rows), "tokens": sum(len(text) for row in rows for text in row.texts)}
    (draft.path / "metrics.json").write_text(canonical_json({"held_out": facts, **scores}), encoding="utf-8")
    write_parquet(draft.path / "predictions.parquet", *_records(found, rows, job.inputs["tokens"].content["sources"]))
    write_plot(draft.path / "accuracy.csv", scores, "accuracy")
    write_plot(draft.path / "held_out_loss.csv", {}, "loss")
    write_jsonl(draft.path / "samples.jsonl", [])
    shutil.copyfile(job.inputs["trained"].path / "log.csv", draft.path / "loss.csv")
    verdict = _verdict(scores)
    findings = Findings(
        verdict=verdict,
        answer=[],
        scores={},
        measure="accuracy",
        held_out=facts,
        subjects=subjects,
        sources={},
        samples=[],
        max_new_tokens=0,
        benchmark=None,
        more={"judgements": scores} if scores else {},
    )
    write_report(draft.path / "report.html", findings, job.inputs)
    draft.describe(verdict=verdict, **facts)
    return {"verdict": verdict, "rows": len(rows), **{name: {"accuracy": score["accuracy"]} for name, score in scores.items()}}


def _digest(rows: Sequence[Judged]) -> str:
    hasher = hashlib.sha256()
    for row in rows:
        for part in (*row.texts, row.places, row.labels):
            hasher.update(np.int64(len(part)).tobytes())
            hasher.update(part.tobytes())
    return hasher.hexdigest()


def _verdict(scores: Mapping[str, Scores]) -> str:
    if not scores:
        return "Nothing was judged: no row is held out. Set val_set_size (or test_datasets) in params.yaml."
    merged = scores["merged"]
    share = f"{merged['accuracy']:.2f} [{merged['accuracy_low']:.2f}, {merged['accuracy_high']:.2f}]"
    p = "p < 0.0001" if merged["p_value"] < 1e-4 else f"p = {merged['p_value']:.2g}"
    if "pairs" in merged:
        chance, what = 0.5, f"prefers the better answer in {share} of {merged['pairs']} held-out pairs; chance is 0.50 ({p})."
    else:
        chance = merged["majority_share"]
        what = f"judges {share} of {merged['steps']} held-out steps rightly; always saying the same would score {chance:.2f} ({p})."
    learnt = merged["p_value"] < 0.05 and merged["accuracy"] > chance
    return f"The model {what}" if learnt else f"The model has not measurably learnt to judge: it {what}"


def _records(
    found: Mapping[str, Sequence[Sequence[float]]], rows: Sequence[Judged], sources: Sequence[Mapping[str, Any]]
) -> tuple[pa.Schema, Iterator[dict[str, Any]]]:
    steps = bool(rows) and len(rows[0].texts) == 1

    def lines() -> Iterator[dict[str, Any]]:
        for name, values in found.items():
            for row, given in zip(rows, values, strict=True):
                origin = {"model": name, "source": sources[row.source]["name"], "file": sources[row.source]["file"], "row": row.row}
                if not steps:
                    better, worse = given
                    yield origin | {"chosen_reward": better, "rejected_reward": worse, "correct": better > worse}
                for step, score in enumerate(given if steps else []):
                    label = int(row.labels[step])
                    yield origin | {"step": step, "label": label, "score": score, "correct": (score > 0.5) == (label == 1)}

    return (_STEPS if steps else _PAIRS), lines()

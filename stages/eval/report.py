"""The report: one HTML file that asks nothing of any network, for light and dark screens, phones and paper."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipeline.artifact import Artifact
from pipeline.bins import Bins
from pipeline.tokens import TokenTable
from stages.eval.charts import curve, histogram, interval_chart, size_chart, smoothing_window
from stages.eval.extras import score_sizes
from stages.eval.generated import answers_table
from stages.eval.score_tables import (
    generation_table,
    interval,
    judgements_table,
    lm_eval_table,
    losses_by_source,
    sizes_table,
    subjects_table,
)
from stages.eval.scores import Scores
from stages.eval.statistics import RESAMPLES
from stages.eval.subjects import Subject
from stages.eval.tables import Table, fates_table, lineage, origin, packing_table, removal_table, sources_table
from stages.eval.text_metrics import RESAMPLES as TEXT_RESAMPLES


@dataclass(frozen=True)
class Findings:
    """What was found out about the models.

    Attributes:
        scores: by model name; empty without held-out rows.
        answer: questions and their short answers, for the top of the page.
        measure: ``accuracy`` or ``exact_match``, the one that the first chart shows.
        held_out: counts of the held-out rows.
        subjects: the models.
        sources: manifest entries of the sources by the names that scores have for them.
        samples: records of samples.jsonl.
        benchmark: its name, how many questions it has, what one fixed letter would score; None without one.
        more: ``benchmark``, ``generation``, ``lm_eval``, as far as they were asked for: scores by model name.
    """

    verdict: str
    answer: Sequence[tuple[str, str]]
    scores: Mapping[str, Scores]
    measure: str
    held_out: Mapping[str, Any]
    subjects: Sequence[Subject]
    sources: Mapping[str, Mapping[str, Any]]
    samples: Sequence[Mapping[str, Any]]
    max_new_tokens: int
    benchmark: Mapping[str, Any] | None
    more: Mapping[str, Mapping[str, Scores]]


def write_report(path: Path, findings: Findings, inputs: Mapping[str, Artifact]) -> None:
    """Render ``report.html.jinja``; everything that comes from data is escaped there."""
    page = (
        _environment()
        .get_template("report.html.jinja")
        .render(
            findings=findings,
            charts=_score_charts(findings),
            tables=_score_tables(findings),
            training=_training(inputs["trained"].path),
            data=_data(inputs),
            lineage=lineage(inputs, {subject.name: subject.digest for subject in findings.subjects}),
            resamples=RESAMPLES,
            text_resamples=TEXT_RESAMPLES,
        )
    )
    path.write_text(page, encoding="utf-8", newline="\n")


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"p": lambda value: "< 0.0001" if value < 1e-4 else f"{value:.4f}"}
    environment.filters |= {
        "cell": _cell,
        "interval": interval,
        "p": lambda value: "< 0.0001" if value < 1e-4 else f"{value:.4f}",
        "words": lambda name: name.replace("_", " "),
    }
    return environment


def _cell(value: Any) -> str:
    if isinstance(value, Markup):
        return value
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _score_charts(findings: Findings) -> dict[str, Markup]:
    charts = {}
    if findings.scores:
        words = findings.measure.replace("_", " ")
        share = findings.held_out.get("majority_share")
        charts["share"] = interval_chart("share", f"Held-out {words}", findings.scores, findings.measure, share)
        charts["loss"] = interval_chart("loss", "Held-out loss", findings.scores, "loss")
    if findings.scores and len(findings.subjects) > 2:
        charts["sizes"] = size_chart("sizes", "Perplexity over size", _points(findings))
    if judged := findings.more.get("judgements"):
        share = judged["merged"].get("majority_share", 0.5)
        charts["judgements"] = interval_chart("judgements", "Judged rightly", judged, "accuracy", share)
    if findings.benchmark is not None:
        share = findings.benchmark["majority_share"]
        charts["benchmark"] = interval_chart("benchmark", "Accuracy on the benchmark", findings.more["benchmark"], "accuracy", share)
    return charts


def _points(findings: Findings) -> dict[str, tuple[float, float]]:
    """Megabytes of weights and perplexity, by model; base is another model, and off the scale as a rule."""
    found = {subject.name: (subject.size / 1e6, findings.scores[subject.name]["perplexity"]) for subject in findings.subjects[1:]}
    return {name: point for name, point in found.items() if point[1] is not None}


def _score_tables(findings: Findings) -> dict[str, Table]:
    labels = {name: origin(source) for name, source in findings.sources.items()}
    tables = {
        "sizes": sizes_table(score_sizes(findings.subjects, findings.scores), findings.scores),
        "sources": losses_by_source(findings.scores, labels),
        "generation": generation_table(findings.more.get("generation", {})),
        "subjects": subjects_table(findings.more.get("benchmark", {})),
        "judgements": judgements_table(findings.more.get("judgements", {})),
        "lm_eval": lm_eval_table(findings.more.get("lm_eval", {})),
    }
    return {name: table for name, table in tables.items() if table.rows}


def _columns(path: Path) -> dict[str, np.ndarray]:
    """A CSV of numbers by column; empty where there is no file, or no line in it."""
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", newline="") as stream:
        lines = list(csv.DictReader(stream))
    return {name: np.array([float(line[name]) for line in lines]) for name in lines[0]} if lines else {}


def _training(trained: Path) -> dict[str, Any]:
    """Curves from the training log, with the evaluations of the time; empty when nothing was logged."""
    log, evaluated = _columns(trained / "log.csv"), _columns(trained / "eval.csv")
    if not log:
        return {}
    window = smoothing_window(len(log["step"]))
    held_out = (evaluated["step"], evaluated["eval_loss"]) if "eval_loss" in evaluated else None
    rewards = (evaluated["step"], evaluated["eval_reward"]) if "eval_reward" in evaluated else None
    return {
        "reward": curve("reward", "Mean reward", log["step"], log["reward"], window, rewards) if "reward" in log else None,
        "answers": answers_table(trained),
        "loss": curve("training", "Training loss", log["step"], log["loss"], window, held_out),
        "learning_rate": curve("learning-rate", "Learning rate", log["step"], log["learning_rate"]),
        "window": window,
        "points": len(log["step"]),
        "evaluations": len(evaluated.get("step", ())),
    }


def _data(inputs: Mapping[str, Artifact]) -> dict[str, Any]:
    packed = inputs["packed"].content
    capacity = int(packed["sequence_len"])
    lengths, bins = TokenTable(inputs["tokens"].path).lengths, Bins.load(inputs["packed"].path / "train.arrow")
    data = {
        "sources": sources_table(inputs["tokens"].content["sources"]),
        "removed": removal_table(inputs["dedupe"].content, packed),
        "packing": packing_table(packed),
        "fates": fates_table(packed.get("sources", ())),
        "sequence_len": capacity,
    }
    if len(lengths):
        # The line at sequence_len only where it does not squeeze the rows into a corner.
        mark = capacity if capacity <= 1.25 * lengths.max() else None
        edges = np.linspace(0, max(lengths.max(), mark or 0) + 1, 31).tolist()
        data["lengths"] = histogram("lengths", "Lengths of the tokenized rows", lengths, edges, "tokens", "rows", mark)
        data["marked"] = mark is not None
    if len(bins):
        fill = np.add.reduceat(bins.length, bins.offsets[:-1]) / capacity
        edges = np.linspace(0, max(1.0, fill.max()), 21).tolist()
        data["fill"] = histogram("fill", "How full the training bins are", fill, edges, "share of sequence_len", "bins")
    return data

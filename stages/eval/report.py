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
from stages.eval.charts import curve, histogram, interval_chart, smoothing_window
from stages.eval.scores import Scores
from stages.eval.statistics import RESAMPLES
from stages.eval.tables import lineage, packing_table, removal_table, sources_table


@dataclass(frozen=True)
class Findings:
    """What was found out about the models.

    Attributes:
        scores: by model name; empty without held-out rows.
        measure: ``accuracy`` or ``exact_match``, the one that the first chart shows.
        held_out: counts of the held-out rows.
        sizes: bytes of weights by model name.
        samples: records of samples.jsonl.
    """

    verdict: str
    scores: Mapping[str, Scores]
    measure: str
    held_out: Mapping[str, Any]
    sizes: Mapping[str, int]
    samples: Sequence[Mapping[str, Any]]
    max_new_tokens: int


def write_report(path: Path, findings: Findings, inputs: Mapping[str, Artifact]) -> None:
    """Render ``report.html.jinja``; everything that comes from data is escaped there."""
    page = (
        _environment()
        .get_template("report.html.jinja")
        .render(
            findings=findings,
            charts=_score_charts(findings),
            training=_training(inputs["trained"].path / "log.csv"),
            data=_data(inputs),
            lineage=lineage(inputs),
            resamples=RESAMPLES,
        )
    )
    path.write_text(page, encoding="utf-8", newline="\n")


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"cell": _cell, "interval": _interval, "words": lambda name: name.replace("_", " ")}
    return environment


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _interval(scores: Scores, name: str, digits: int = 3) -> Markup:
    """A value with its interval in smaller type."""
    low, high = scores[f"{name}_low"], scores[f"{name}_high"]
    return Markup('{} <span class="interval">[{},&nbsp;{}]</span>').format(*(f"{value:.{digits}f}" for value in (scores[name], low, high)))


def _score_charts(findings: Findings) -> dict[str, Markup]:
    if not findings.scores:
        return {}
    words = findings.measure.replace("_", " ")
    return {
        "share": interval_chart("share", f"Held-out {words}", findings.scores, findings.measure, findings.held_out.get("majority_share")),
        "loss": interval_chart("loss", "Held-out loss", findings.scores, "loss"),
    }


def _training(log: Path) -> dict[str, Any]:
    """Curves from the training log; empty when nothing was logged."""
    with log.open(encoding="utf-8", newline="") as stream:
        lines = list(csv.DictReader(stream))
    if not lines:
        return {}
    step, loss, learning_rate = (np.array([float(line[name]) for line in lines]) for name in ("step", "loss", "learning_rate"))
    window = smoothing_window(len(lines))
    return {
        "loss": curve("training", "Training loss", step, loss, window),
        "learning_rate": curve("learning-rate", "Learning rate", step, learning_rate),
        "window": window,
        "points": len(lines),
    }


def _data(inputs: Mapping[str, Artifact]) -> dict[str, Any]:
    packed = inputs["packed"].content
    capacity = int(packed["sequence_len"])
    lengths, bins = TokenTable(inputs["tokens"].path).lengths, Bins.load(inputs["packed"].path / "train.arrow")
    data = {
        "sources": sources_table(inputs["tokens"].content["sources"]),
        "removed": removal_table(inputs["dedupe"].content, packed),
        "packing": packing_table(packed),
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

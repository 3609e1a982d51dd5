"""Tables of the report that hold scores: by source, by turn, by subject, by task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from stages.eval.scores import Scores
from stages.eval.tables import Table


def losses_by_source(scores: Mapping[str, Scores], labels: Mapping[str, str]) -> Table:
    """Loss of each model on the rows of each source; empty where there is one source. ``labels``: what readers call the sources."""
    models = {name: found["sources"] for name, found in scores.items() if "sources" in found}
    rows = []
    for source in next(iter(models.values()), {}):
        for name, found in models.items():
            losses, versus = found[source], found[source].get("vs_base")
            change = "" if versus is None else interval(versus, "loss_change")
            rows.append([labels[source], name, losses["rows"], losses["tokens"], interval(losses, "loss"), _perplexity(losses), change])
    return Table(["source", "model", "rows", "tokens", "loss", "perplexity", "change of loss"], rows)


def sizes_table(sizes: Mapping[str, Scores], scores: Mapping[str, Scores]) -> Table:
    """What quantisation saves and what it costs; empty where nothing was quantised or judged."""
    if len(sizes) <= 2:
        return Table([], [])
    merged = sizes["merged"]["weights_bytes"]
    rows = [
        [
            name,
            facts["weights_bytes"] / 1e6,
            f"{100 * facts['weights_bytes'] / merged:.0f} %",
            facts.get("bits_per_weight", ""),
            _perplexity(scores[name]),
            facts.get("perplexity_ratio", ""),
        ]
        for name, facts in sizes.items()
        if name in scores and name != "base"
    ]
    return Table(["model", "weights, MB", "of merged", "bits per weight", "perplexity", "times merged's"], rows)


def generation_table(scores: Mapping[str, Scores]) -> Table:
    """Answers to every turn, compared with the data's."""
    metrics = [key for key in next(iter(scores.values()), {}) if not key.endswith("_p_value") and key not in ("turns", "perplexity")]
    has_perplexity = any("perplexity" in found for found in scores.values())
    heads = ["model", "turns", *metrics, *(["perplexity"] if has_perplexity else [])]
    rows = [
        [name, found["turns"], *(_with_p(found, metric) for metric in metrics), *([_perplexity(found)] if has_perplexity else [])]
        for name, found in scores.items()
    ]
    return Table(heads, rows)


def _with_p(found: Scores, metric: str) -> Any:
    p = found.get(f"{metric}_p_value")
    return found[metric] if p is None else with_note(f"{found[metric]:.4g}", f"p {p:.2g}")


def _perplexity(found: Scores) -> Any:
    return "beyond 1e308" if found["perplexity"] is None else found["perplexity"]


def judgements_table(scores: Mapping[str, Scores]) -> Table:
    """What models that judge made of the held-out rows."""
    has_margin = any("margin" in found for found in scores.values())
    rows = []
    for name, found in scores.items():
        margin = [interval(found, "margin")] if has_margin else []
        rows.append([name, found["pairs" if has_margin else "steps"], interval(found, "accuracy"), found["p_value"], *margin])
    return Table(["model", "pairs" if has_margin else "steps", "judged rightly", "p", *(["margin of rewards"] if has_margin else [])], rows)


def subjects_table(scores: Mapping[str, Scores]) -> Table:
    """Accuracy of each model on each subject of the benchmark; empty where it has one."""
    models = {name: found["subjects"] for name, found in scores.items() if "subjects" in found}
    first: Mapping[str, Scores] = next(iter(models.values()), {})
    rows = [
        [subject, facts["questions"], *(interval(found[subject], "accuracy", 2) for found in models.values())]
        for subject, facts in first.items()
    ]
    return Table(["subject", "questions", *models], rows)


def lm_eval_table(scores: Mapping[str, Scores]) -> Table:
    """lm-eval's metrics, models side by side, each with its standard error."""

    def cell(values: Mapping[str, float], metric: str) -> Any:
        error = values.get(f"{metric}_stderr")
        return values.get(metric, "") if error is None or metric not in values else with_note(f"{values[metric]:.4g}", f"± {error:.2g}")

    tasks = next(iter(scores.values()), {})
    named = [(task, metric) for task, values in tasks.items() for metric in values if not metric.endswith("_stderr")]
    rows = [[task, metric.replace("_", " "), *(cell(found[task], metric) for found in scores.values())] for task, metric in named]
    return Table(["task", "metric", *scores], rows)


def interval(scores: Scores, name: str, digits: int = 3) -> Markup:
    """A value with its interval in smaller type."""
    value, low, high = (f"{scores[key]:.{digits}f}" for key in (name, f"{name}_low", f"{name}_high"))
    return with_note(value, f"[{low},\u00a0{high}]")


def with_note(value: str, note: str) -> Markup:
    """A number with a note in smaller type."""
    return Markup('{} <span class="interval">{}</span>').format(value, note)

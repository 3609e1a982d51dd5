"""What the stages that run will take: rows, tokens and steps as far as they are known, time and memory by earlier runs here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.artifact import MANIFEST, open_artifact
from pipeline.errors import RegrowError
from pipeline.history import records
from pipeline.options.recipe import Recipe
from pipeline.options.views import TrainOptions
from pipeline.planning.verdicts import Planned, Verdict
from pipeline.project import Project

_SCALES = {"tokenize": "rows", "dedupe": "rows", "pack": "rows", "train": "tokens", "eval": "rows"}
"""What the time of a stage grows with. The others take as long as the last time."""


@dataclass(frozen=True)
class Expected:
    """Of one stage.

    Attributes:
        counts: rows, tokens, steps and what else says how much work it is.
        is_exact: whether the counts are those of the data as it is; else those of the last run, whose data may be another.
        seconds: about; ``None`` where the stage never ran here.
        memory_mb: of the process, and of a GPU, at the peak.
    """

    counts: Mapping[str, int]
    is_exact: bool
    seconds: float | None
    memory_mb: int | None
    gpu_memory_mb: int | None


def expect(project: Project, recipe: Recipe, planned: Sequence[Planned]) -> dict[str, Expected]:
    """For each stage that runs, or may."""
    working = [entry.stage for entry in planned if entry.verdict in (Verdict.runs, Verdict.waits)]
    open_ended = {name for stage in working for name in stage.writes}
    runs = [record.facts for record in records(project) if record.done]
    options = recipe.view(TrainOptions)
    return {stage.name: _expected(project, options, stage.name, open_ended, runs) for stage in working}


def _expected(project: Project, options: TrainOptions, stage: str, open_ended: set[str], runs: Sequence[Mapping[str, Any]]) -> Expected:
    counts = _counts(project, options, stage, open_ended)
    earlier = [facts for facts in runs if facts["stage"] == stage] or list(_single_record(project, stage))
    alike = [facts for facts in earlier if _is_alike(options, stage, facts)]
    if not alike:
        return Expected(counts, bool(counts), None, None, None)
    record = alike[-1]
    before = _recorded_counts(stage, record.get("metrics", {}))
    share = _share(_SCALES.get(stage, ""), counts, before) if counts or stage != "train" else _passes(options, record["metrics"])
    shown = counts or {key: round(value * share) for key, value in before.items()}
    memory, gpu = record.get("peak_memory_mb"), record.get("peak_gpu_memory_mb")
    return Expected(shown, bool(counts), _seconds(record, before.get("tokens")) * share, memory, gpu)


def _is_alike(options: TrainOptions, stage: str, record: Mapping[str, Any]) -> bool:
    """Whether a run is one to go by: training an adapter has another pace than training all weights."""
    kind = record.get("metrics", {}).get("kind")
    return stage != "train" or kind is None or (kind == "adapter") == bool(options.adapter)


def _share(measure: str, counts: Mapping[str, int], before: Mapping[str, int]) -> float:
    return counts[measure] / before[measure] if counts.get(measure) and before.get(measure) else 1.0


def _passes(options: TrainOptions, metrics: Mapping[str, Any]) -> float:
    """How much longer than a former run a training is, while it is not known how many bins there will be."""
    steps, epochs = metrics.get("steps"), metrics.get("epochs")
    if options.max_steps:
        return float(options.max_steps / steps) if steps else 1.0
    return float(options.num_epochs / epochs) if epochs else 1.0


def _seconds(record: Mapping[str, Any], tokens: int | None) -> float:
    """Of the whole run. A training that was resumed has the seconds of its last process, and the speed of a step all the same."""
    speed = record.get("tokens_per_second")
    return max(float(record["seconds"]), tokens / speed if speed and tokens else 0.0)


def _recorded_counts(name: str, metrics: Mapping[str, Any]) -> dict[str, int]:
    if name == "pack":
        splits = [metrics.get(split, {}) for split in ("train", "eval")]
        return {"rows": sum(split.get("rows", 0) for split in splits), "tokens": sum(split.get("tokens", 0) for split in splits)}
    return {key: metrics[key] for key in ("rows", "tokens", "steps") if isinstance(metrics.get(key), int)}


def _single_record(project: Project, stage: str) -> Iterator[Mapping[str, Any]]:
    """The last run alone, of a project in which runs were not yet listed."""
    try:
        record: dict[str, Any] = json.loads((project.data / "metrics" / f"{stage}.json").read_text(encoding="utf-8"))
        if record["seconds"] >= 0 and isinstance(record["metrics"], dict):
            yield record
    except (OSError, ValueError, KeyError, TypeError):
        return


def _counts(project: Project, options: TrainOptions, stage: str, open_ended: set[str]) -> dict[str, int]:
    """By the artifacts that the stage will read, where those stay as they are."""
    if stage == "dedupe" and "tokens" not in open_ended:
        content = _content(project, "tokens")
        return {key: content[key] for key in ("rows", "tokens") if key in content}
    if stage == "pack" and not open_ended & {"tokens", "dedupe"}:
        content = _content(project, "dedupe")
        return {"rows": content["kept"]} if "kept" in content else {}
    if stage == "train" and not open_ended & {"tokens", "packed"}:
        return _training(project, options)
    if stage == "eval" and "packed" not in open_ended:
        return {"rows": rows} if (rows := _content(project, "packed").get("eval", {}).get("rows")) else {}
    return {}


def _content(project: Project, name: str) -> Mapping[str, Any]:
    try:
        return open_artifact(project.data / name, verify=False).content
    except RegrowError:
        return {}


def _training(project: Project, options: TrainOptions) -> dict[str, int]:
    from pipeline.forecast import training_work

    work = training_work(project.data, options)
    return {} if work is None else {"steps": work.steps.steps, "tokens": work.tokens, "trained_tokens": work.trained_tokens}


def training_lines(project: Project, recipe: Recipe, planned: Sequence[Planned]) -> Iterator[str]:
    """The training in full, where the bins it will read are there already."""
    verdicts = {entry.stage.name: entry.verdict for entry in planned}
    settled = all(verdicts.get(name) is Verdict.nothing for name in ("tokenize", "pack"))
    if settled and verdicts.get("train") in (Verdict.runs, Verdict.waits) and (project.data / "packed" / MANIFEST).is_file():
        from pipeline.forecast import forecast

        yield from forecast(project.data, recipe.view(TrainOptions))

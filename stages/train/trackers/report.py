"""Tells the trackers what log.csv and eval.csv say, while it happens."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from pipeline.errors import MissingExtra, RegrowError
from pipeline.options.views import TrainOptions
from pipeline.stage import Job
from stages.train.data.counts import SeenTokens
from stages.train.loop.log import columns_of, evaluation_lines, log_lines
from stages.train.trackers.hub import Hub
from stages.train.trackers.services import Comet, MLflow, Prometheus, TensorBoard, Trackio, WeightsAndBiases
from stages.train.trackers.tracker import Beginning, Numbers, Tracker

Say = Callable[[str], None]


@dataclass(frozen=True)
class Service:
    """How a tracker is opened: the package it needs, the extra that brings it, the options that may hold secrets."""

    open: Callable[[TrainOptions, Beginning], Tracker]
    package: str
    extra: str
    secrets: tuple[str, ...] = ()


SERVICES = {
    "use_wandb": Service(WeightsAndBiases, "wandb", "wandb"),
    "use_mlflow": Service(MLflow, "mlflow", "mlflow", ("mlflow_tracking_uri",)),
    "use_comet": Service(Comet, "comet_ml", "comet", ("comet_api_key",)),
    "use_trackio": Service(Trackio, "trackio", "trackio"),
    "use_tensorboard": Service(TensorBoard, "tensorboard", "tensorboard"),
    "use_otel_metrics": Service(Prometheus, "opentelemetry", "otel"),
    "hub_model_id": Service(Hub, "huggingface_hub", ""),
}


class Report(TrainerCallback):
    """Passes every line of the log, and every evaluation, to the trackers that the options ask for.

    A tracker that fails while training runs is left out from then on, and said so once: no network is worth a run.
    """

    def __init__(self, options: TrainOptions, every: int, seen: SeenTokens, trackers: dict[str, Tracker], say: Say) -> None:
        self._options, self._every, self.seen, self._trackers, self._say = options, every, seen, trackers, say
        self._reported = 0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any) -> None:
        self._reported = state.global_step
        self._tell(lambda tracker: tracker.watch(model))

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        entry = state.log_history[-1]
        if "loss" in entry and state.global_step % self._every == 0:
            self._window(state)
        for line in evaluation_lines([entry], columns_of(self._options).evaluated):
            self._log(line)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        self._tell(lambda tracker: tracker.keep(folder, folder.name, last=False))

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step % self._every:
            self._window(state)

    def published(self, folder: Path) -> None:
        """The trained weights are there."""
        self._tell(lambda tracker: tracker.keep(folder, "trained", last=True))

    def _window(self, state: TrainerState) -> None:
        first = state.global_step - (state.global_step - 1) % self._every
        newest = takewhile(lambda entry: entry["step"] >= first, reversed(state.log_history))
        for line in log_lines(reversed(list(newest)), self._every, self.seen):
            self._log(line)

    def _log(self, line: Numbers) -> None:
        numbers = {_shown(name): value for name, value in line.items() if name != "step"}
        self._tell(lambda tracker: tracker.log(int(line["step"]), numbers))

    def _tell(self, act: Callable[[Tracker], None]) -> None:
        for switch, tracker in list(self._trackers.items()):
            try:
                act(tracker)
            except Exception as error:  # whatever a service's package raises
                del self._trackers[switch]
                self._say(f"warning: {switch}: no more is reported there: {_safe(error, self._options, SERVICES[switch])}")


def _shown(name: str) -> str:
    """The names that transformers' integrations use, so that dashboards fit."""
    return f"eval/{name.removeprefix('eval_')}" if name.startswith("eval_") else f"train/{name}"


@contextmanager
def reporting(job: Job[TrainOptions], every: int, seen: SeenTokens, first: int, say: Say, *, leads: bool) -> Iterator[Report | None]:
    """Open the trackers that the options ask for, before a model is loaded; close them as finished, or as broken off.

    Args:
        every: steps between two lines.
        first: the step that the run starts after.
        leads: this is the process of a launch that reports.

    Raises:
        RegrowError: a package is missing, or the service does not let the run begin.
    """
    asked = {switch: service for switch, service in SERVICES.items() if leads and getattr(job.options, switch)}
    if not asked:
        yield None
        return
    names = job.scratch / "trackers.json"
    known: dict[str, str] = json.loads(names.read_text(encoding="utf-8")) if first and names.exists() else {}
    trackers: dict[str, Tracker] = {}
    finished = False
    try:
        for switch, service in asked.items():
            beginning = Beginning(_config(job), _folder(job), first, known.get(switch), every)
            trackers[switch] = _opened(switch, service, job.options, beginning)
        names.write_text(json.dumps({switch: tracker.name for switch, tracker in trackers.items() if tracker.name}), encoding="utf-8")
        yield Report(job.options, every, seen, trackers, say)
        finished = True
    finally:
        for switch, tracker in trackers.items():
            _ended(tracker, switch, job.options, finished, say)


def _opened(switch: str, service: Service, options: TrainOptions, beginning: Beginning) -> Tracker:
    try:
        return service.open(options, beginning)
    except ModuleNotFoundError as error:
        raise MissingExtra(switch, error.name or service.package, service.extra) from None
    except Exception as error:  # whatever a service's package raises
        told = _safe(error, options, service)
        raise RegrowError(f"{switch}: {service.package} does not begin: {told}", f"Mend its settings, or remove {switch}.") from None


def _ended(tracker: Tracker, switch: str, options: TrainOptions, finished: bool, say: Say) -> None:
    try:
        tracker.end(finished=finished)
    except Exception as error:  # whatever a service's package raises
        say(f"warning: {switch}: the run could not be closed there: {_safe(error, options, SERVICES[switch])}")


def _safe(error: Exception, options: TrainOptions, service: Service) -> str:
    """An error in one line, without the secrets that the options hold."""
    told = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
    for secret in filter(None, (getattr(options, name) for name in service.secrets)):
        told = told.replace(secret, "(not shown)")
    return told


def _config(job: Job[TrainOptions]) -> Mapping[str, Any]:
    digests = {f"data/{name}": artifact.digest for name, artifact in job.inputs.items()}
    return {**job.options.canonical(), "identity": job.identity, **digests}


def _folder(job: Job[TrainOptions]) -> Path:
    job.records.mkdir(parents=True, exist_ok=True)
    return job.records

"""One training run, from artifacts to data/trained."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch

from pipeline.errors import RegrowError
from pipeline.generation import generates
from pipeline.options.views import TrainOptions
from pipeline.progress import Progress
from pipeline.stage import Job, Metrics
from stages.train.building import build_trainer, order_of
from stages.train.checkpoints.complete import read_origin, remove_incomplete
from stages.train.checkpoints.origin import choose_start, forget_later, origin_of
from stages.train.data.batch_sizes import OutOfMemory, halved, out_of_memory, settle_batches
from stages.train.data.corpus import Corpus, open_corpus
from stages.train.data.counts import SeenTokens
from stages.train.launch import Launch, Silence, find_launch
from stages.train.loop.best import History, criterion_of
from stages.train.loop.log import columns_of, evaluation_lines, log_lines, write_log
from stages.train.loop.milestones import Keeping
from stages.train.loop.running import Course, run
from stages.train.loop.schedule import Schedule, plan_schedule
from stages.train.model.precision import Precision, choose_precision
from stages.train.online.counts import SeenAnswers
from stages.train.optimizers.build import check_optimizer
from stages.train.output.card import CARD, model_card
from stages.train.output.folder import copy_tokenizer, kind_of, write_model
from stages.train.sharding.settings import prepare_deepspeed
from stages.train.sharding.weights import make_whole
from stages.train.trackers.report import Report, reporting
from stages.train.trainer import Steps


def train(job: Job[TrainOptions]) -> Metrics:
    """Train, from the newest complete checkpoint if there is one, and fill data/trained.

    Raises:
        RegrowError: inputs that do not fit each other, an option that this device or model cannot do, a loss that diverged.
        Interrupted: asked to stop; the work so far is in a checkpoint.
    """
    launch = find_launch()
    progress = job.progress if launch.leads else Silence()
    corpus = open_corpus(job.inputs)
    precision = choose_precision(job.options, progress.say)
    check_optimizer(job.options)
    prepare_deepspeed(job.options, precision)
    start, found = _start(job, launch, precision)
    settled = replace(job, options=settle_batches(job.options, launch.world_size, found))
    strictness = torch.get_deterministic_debug_mode()
    while True:
        try:
            return _attempt(settled, job, corpus, precision, launch, start, progress)
        except OutOfMemory as error:
            if not job.options.auto_find_batch_size or settled.options.micro_batch_size == 1:
                raise
            settled, start = replace(settled, options=halved(settled.options)), None
            progress.say(f"{error.message} Starting again with micro_batch_size {settled.options.micro_batch_size}.")
        torch.set_deterministic_debug_mode(strictness)  # attention sets another for the time of its gradients
        gc.collect()
        torch.cuda.empty_cache()


def _start(job: Job[TrainOptions], launch: Launch, precision: Precision) -> tuple[Path | None, int | None]:
    """The checkpoint to go on from, and the micro batch that its run had found to fit."""
    checkpoints = job.scratch / "checkpoints"
    start = choose_start(job.options, checkpoints, origin_of(job, launch.world_size, precision))
    if launch.leads:
        remove_incomplete(checkpoints)
    return start, None if start is None else int(read_origin(start)["micro_batch_size"])


def _attempt(
    job: Job[TrainOptions],
    asked: Job[TrainOptions],
    corpus: Corpus,
    precision: Precision,
    launch: Launch,
    start: Path | None,
    progress: Progress,
) -> Metrics:
    """One run with settled batches. ``asked`` has the options as the file has them: they are what a checkpoint is known by."""
    schedule = plan_schedule(job.options, len(corpus.bins), launch.world_size)
    _require_held_out(job.options, schedule, corpus)
    if schedule.warmup_steps >= schedule.steps > 1:
        progress.say(
            f"Warm-up takes {schedule.warmup_steps} steps and the run has {schedule.steps}, so the peak learning rate is never used: "
            f"expect little, or set warmup_ratio: 0.03."
        )
    course = Course(
        schedule, SeenTokens(corpus.counts, schedule, order_of(job.options, corpus, launch.world_size)), criterion_of(job.options)
    )
    if launch.leads:
        forget_later(job.scratch / "checkpoints", start)
    first = 0 if start is None else int(read_origin(start)["step"])
    with reporting(job, schedule.logging_steps, course.seen, first, progress.say, leads=launch.leads) as report:
        trainer, course = _trained(job, asked, corpus, course, precision, launch, start, progress, report)
        history, metrics = trainer.state.log_history, _metrics(job.options, trainer, course, precision)
        make_whole(trainer.model, trainer.args.device, keep=launch.leads)
        if launch.leads:
            folder = job.outputs["trained"].path
            _write(job, trainer.model, history, course, metrics)
            trainer.publish(folder)
            if report is not None:
                report.published(folder)
    _end(trainer)
    return metrics


def _trained(
    job: Job[TrainOptions],
    asked: Job[TrainOptions],
    corpus: Corpus,
    course: Course,
    precision: Precision,
    launch: Launch,
    start: Path | None,
    progress: Progress,
    report: Report | None,
) -> tuple[Any, Course]:
    """The trainer after its last step, and the course it took."""
    try:
        trainer = build_trainer(job, corpus, course.schedule, precision, launch, job.scratch / "checkpoints", progress)
        if generates(job.options):
            course = replace(course, seen=SeenAnswers(trainer, course.seen.order))
        best = course.criterion if job.options.load_best_model_at_end else None
        trainer.keeping = Keeping(origin_of(asked, launch.world_size, precision), job.options.save_total_limit, best, course.schedule)
        if report is not None:
            report.seen = course.seen
            trainer.add_callback(report)
        run(trainer, job, course, start, progress)
    except RuntimeError as error:
        if (short := out_of_memory(error, job.options)) is None:
            raise
        raise short from None
    return trainer, course


def _require_held_out(options: TrainOptions, schedule: Schedule, corpus: Corpus) -> None:
    if schedule.evaluations.interval is not None and not corpus.held_out_trained:
        key = next(name for name in ("eval_steps", "evals_per_epoch", "eval_strategy") if getattr(options, name))
        raise RegrowError(
            f"{key}: {getattr(options, key)}, and data/packed/eval.arrow holds no token to measure.",
            f"Raise val_set_size or add test_datasets, or remove {key}.",
        )


def _metrics(options: TrainOptions, trainer: Steps, course: Course, precision: Precision) -> Metrics:
    step, history = trainer.state.global_step, trainer.state.log_history
    lines = log_lines(history, course.schedule.logging_steps, course.seen)
    tokens, trained_tokens = course.seen.after(step)
    metrics: Metrics = {
        "kind": kind_of(options),
        "steps": step,
        "epochs": round(step / course.schedule.steps_per_epoch, 6),
        "tokens": tokens,
        "trained_tokens": trained_tokens,
        "loss": round(lines[-1]["loss"], 6) + 0.0,  # no negative zero
        "precision": precision,
    }
    columns = columns_of(options)
    evaluations = evaluation_lines(history, columns.evaluated)
    if evaluations:
        best = course.criterion.best(history, course.schedule.keeps) if options.load_best_model_at_end else None
        given = next((line for line in evaluations if line["step"] == best), evaluations[-1])
        metrics |= {"evaluations": len(evaluations), columns.main: round(given[columns.main], 6)}
        metrics |= {} if best is None else {"best_step": best}
    if options.auto_find_batch_size:
        metrics["micro_batch_size"] = options.micro_batch_size
    return metrics


def _end(trainer: Steps) -> None:
    """Leave the process group, the wrapped model first.

    torch 2.13 can wait for itself for ever otherwise: the wrapper's destructor would be the one to end the group, holding
    Python's lock while it joins a thread of gloo's that wants it.
    """
    trainer.accelerator.wait_for_everyone()
    trainer.model_wrapped = cast(Any, trainer.model)
    trainer.accelerator.free_memory()
    gc.collect()
    trainer.accelerator.end_training()


def _write(job: Job[TrainOptions], model: Any, history: History, course: Course, metrics: Metrics) -> None:
    schedule = course.schedule
    trained = job.outputs["trained"]
    write_model(model, job.options, job.inputs["base"].path, trained.path)
    copy_tokenizer(job.inputs["tokenizer"].path, trained.path)
    columns = columns_of(job.options)
    write_log(trained.path / "log.csv", log_lines(history, schedule.logging_steps, course.seen), columns.logged)
    if schedule.evaluations.interval is not None:
        write_log(trained.path / "eval.csv", evaluation_lines(history, columns.evaluated), columns.evaluated)
    (trained.path / CARD).write_text(model_card(job.options, job.inputs, metrics), encoding="utf-8")
    # With these, `regrow trace` computes which steps saw a row.
    order = course.seen.order.facts() | {"bins_per_step": schedule.bins_per_step, "steps_per_epoch": schedule.steps_per_epoch}
    order |= {"updates": schedule.updates} if schedule.updates > 1 else {}
    trained.describe(**metrics, order=order)

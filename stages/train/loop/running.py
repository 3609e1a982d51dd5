"""Training itself, from the checkpoint it starts at to its last step or to a stop that somebody asked for."""

from __future__ import annotations

import os
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import TrainerState

from pipeline.errors import Interrupted, RegrowError
from pipeline.options.views import TrainOptions
from pipeline.progress import Progress
from pipeline.stage import Job
from stages.train.checkpoints.complete import checkpoint_path, is_complete, read_origin
from stages.train.data.counts import SeenTokens
from stages.train.loop.best import Criterion
from stages.train.loop.callbacks import FollowSchedule, HeedRequests, ShowProgress
from stages.train.loop.guards import guards
from stages.train.loop.schedule import Schedule
from stages.train.loop.stopping import Requests, watch_signals
from stages.train.trainer import Steps


@dataclass(frozen=True)
class Course:
    """What a run follows: its schedule, what it will have seen when, and what better means."""

    schedule: Schedule
    seen: SeenTokens
    criterion: Criterion


def run(trainer: Steps, job: Job[TrainOptions], course: Course, start: Path | None, progress: Progress) -> None:
    """Train from ``start`` (``None``: from the base model) and leave in the trainer's model what is to be given out.

    Raises:
        RegrowError: the loss diverged or stayed high, a checkpoint could not be written or is gone.
        Interrupted: asked to stop; the work so far is in a checkpoint.
    """
    first = 0 if start is None else int(read_origin(start)["step"])
    if start is not None:
        progress.say(f"Continuing from the checkpoint of step {first} of {course.schedule.steps}.")
        _require_best(job.options, course, start, Path(str(trainer.args.output_dir)))
    _mention_profile(job.options, course.schedule.steps, progress)
    began = time.monotonic()
    with progress.task("train", total=course.schedule.steps, unit="steps") as task, _signals(job.options) as requests:
        heed = HeedRequests(requests, *_trigger(job, progress), progress.say)
        options = job.options
        follow = FollowSchedule(course.schedule, course.criterion, options.early_stopping_patience, options.save_first_step)
        shown = ShowProgress(task, course.seen, speed=options.include_tkps)
        for callback in (shown, follow, *guards(options, job.records, course.seen, trainer.args.should_save), heed):
            trainer.add_callback(callback)
        trainer.train(resume_from_checkpoint=None if start is None else str(start))
    if heed.stopped:
        raise Interrupted(
            f"Training was asked to stop; it saved a checkpoint after step {trainer.state.global_step} of {course.schedule.steps}.",
            "Run the same command again to continue from there.",
        )
    tokens = course.seen.after(trainer.state.global_step)[0] - course.seen.after(first)[0]
    _observe(job, tokens, time.monotonic() - began, progress)
    if options.load_best_model_at_end:
        _load_best(trainer, course, start)


def _signals(options: TrainOptions) -> AbstractContextManager[Requests]:
    return watch_signals(checkpoints=options.dynamic_checkpoint is not None and options.dynamic_checkpoint.enabled)


def _mention_profile(options: TrainOptions, steps: int, progress: Progress) -> None:
    if options.profiler_steps and options.profiler_steps_start >= steps:
        progress.say(f"profiler_steps_start: {options.profiler_steps_start}, and the run has {steps} steps: nothing is recorded.")


def _trigger(job: Job[TrainOptions], progress: Progress) -> tuple[Path | None, int]:
    """The file that asks for a checkpoint, and the steps between two looks for it."""
    wanted = job.options.dynamic_checkpoint
    if wanted is None or not wanted.enabled:
        return None, 1
    path = job.records / wanted.trigger_file_path
    path.parent.mkdir(parents=True, exist_ok=True)
    progress.say(f"For a checkpoint: touch {_relative(path)}, or kill -USR1 {os.getpid()}.")
    return path, wanted.check_interval


def _relative(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _observe(job: Job[TrainOptions], tokens: int, seconds: float, progress: Progress) -> None:
    """Speed and memory of this process, for the run record."""
    speed = round(tokens / max(seconds, 1e-9), 1)
    job.observed["tokens_per_second"] = speed
    if torch.cuda.is_available():
        job.observed["peak_gpu_memory_mb"] = torch.cuda.max_memory_allocated() // 2**20
    if job.options.include_tokens_per_second:
        progress.say(f"{tokens:,} tokens in {seconds:,.0f} s: {speed:,.0f} tokens per second.")


def _best_checkpoint(course: Course, history: list[dict[str, float]], folders: list[Path]) -> Path | None:
    """Where the best checkpoint so far is; ``None`` before the first."""
    step = course.criterion.best(history, course.schedule.keeps)
    if step is None:
        return None
    found = next((path for path in (checkpoint_path(folder, step) for folder in folders) if is_complete(path)), None)
    if found is None:
        raise RegrowError(
            f"load_best_model_at_end: the best model so far is that of step {step}, and its checkpoint is in none of "
            f"{', '.join(map(str, folders))}.",
            f"Put checkpoint-{step} there, or set auto_resume_from_checkpoints: false and start anew.",
        )
    return found


def _require_best(options: TrainOptions, course: Course, start: Path, checkpoints: Path) -> None:
    """Better before hours of training than after."""
    if options.load_best_model_at_end:
        history = TrainerState.load_from_json(str(start / TRAINER_STATE_NAME)).log_history
        _best_checkpoint(course, history, [checkpoints, start.parent])


def _load_best(trainer: Steps, course: Course, start: Path | None) -> None:
    folders = [Path(str(trainer.args.output_dir)), *([] if start is None else [start.parent])]
    best = _best_checkpoint(course, trainer.state.log_history, folders)
    if best is not None:
        trainer._load_from_checkpoint(str(best))

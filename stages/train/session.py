"""One training run, from artifacts to data/trained."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any, cast

from transformers import AutoTokenizer, TrainingArguments

from pipeline.errors import Interrupted
from pipeline.options.views import TrainOptions
from pipeline.progress import Progress
from pipeline.stage import Job, Metrics
from stages.train.arguments import training_arguments
from stages.train.callbacks import CompleteCheckpoints, SetEpoch, ShowProgress, StopOnRequest
from stages.train.checkpoints import newest_complete, remove_incomplete, step_of
from stages.train.corpus import Corpus, open_corpus
from stages.train.counts import SeenTokens
from stages.train.data import BinDataset, EpochOrder, Padding
from stages.train.isolation import check_isolation
from stages.train.launch import Silence, find_launch
from stages.train.log import log_lines, write_log
from stages.train.model import build_model
from stages.train.output import copy_tokenizer, write_adapter, write_full
from stages.train.precision import choose_precision
from stages.train.schedule import Schedule, plan_schedule
from stages.train.stopping import watch_signals
from stages.train.trainer import BinTrainer


def train(job: Job[TrainOptions]) -> Metrics:
    """Train, from the newest complete checkpoint if there is one, and fill data/trained.

    Raises:
        RegrowError: inputs that do not fit each other, an option that this device or model cannot do, a loss that diverged.
        Interrupted: asked to stop; the work so far is in a checkpoint.
    """
    launch = find_launch()
    progress = job.progress if launch.leads else Silence()
    corpus = open_corpus(job.inputs)
    schedule = plan_schedule(job.options, len(corpus.bins), launch.world_size)
    seen = SeenTokens(corpus.counts, schedule, _shuffling_seed(job.options))
    precision = choose_precision(job.options, progress.say)
    arguments = training_arguments(job.options, schedule, precision, launch, job.scratch / "checkpoints")
    trainer = _build_trainer(job, corpus, schedule, arguments, progress)
    _run(trainer, job.options, seen, progress)
    lines = log_lines(trainer.state.log_history, schedule.logging_steps, seen)
    tokens, trained_tokens = seen.after(schedule.steps)
    metrics: Metrics = {
        "kind": "adapter" if job.options.adapter else "full",
        "steps": schedule.steps,
        "epochs": round(schedule.epochs, 6),
        "tokens": tokens,
        "trained_tokens": trained_tokens,
        "loss": round(lines[-1]["loss"], 6),
        "precision": precision,
    }
    if launch.leads:
        _write(job, trainer.model, lines, metrics)
    _end(trainer)
    return metrics


def _end(trainer: BinTrainer) -> None:
    """Leave the process group, the wrapped model first.

    torch 2.13 can wait for itself for ever otherwise: the wrapper's destructor would be the one to end the group, holding
    Python's lock while it joins a thread of gloo's that wants it.
    """
    trainer.accelerator.wait_for_everyone()
    trainer.model_wrapped = cast(Any, trainer.model)
    trainer.accelerator.free_memory()
    gc.collect()
    trainer.accelerator.end_training()


def _build_trainer(
    job: Job[TrainOptions], corpus: Corpus, schedule: Schedule, arguments: TrainingArguments, progress: Progress
) -> BinTrainer:
    pad = _pad_token_id(job.inputs["tokenizer"].path)
    model = build_model(job.inputs["base"].path, job.options, corpus.counts.largest_id, job.inputs["tokenizer"].content)
    _mention_long_spans(model, corpus, progress)
    order = EpochOrder(_shuffling_seed(job.options), len(corpus.bins), _multiple(arguments))
    trainer = BinTrainer(model, arguments, BinDataset(corpus.bins, corpus.tokens, pad), order, pad, _padding(job))
    trainer.add_callback(SetEpoch(order, schedule.steps_per_epoch))
    # After the Trainer exists: it is what switches the cache off, and a cache would let rows see each other.
    check_isolation(trainer.model, corpus.bins, corpus.tokens)
    return trainer


def _padding(job: Job[TrainOptions]) -> Padding:
    least = int(job.inputs["packed"].content["sequence_len"]) if job.options.pad_to_sequence_len else 1
    return Padding(least, job.options.pad_to_multiple_of or 1)


def _multiple(arguments: TrainingArguments) -> int:
    """Several processes need equally many micro-batches; alone, the last one may be smaller."""
    return arguments.world_size * arguments.per_device_train_batch_size if arguments.world_size > 1 else 1


def _pad_token_id(folder: Path) -> int:
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    candidates = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)  # never trained nor attended to, so any id would do
    return int(next(token for token in candidates if token is not None))


def _shuffling_seed(options: TrainOptions) -> int | None:
    """What shuffles bins from epoch to epoch; ``None`` keeps them in the order of the plan."""
    return None if options.curriculum_sampling else options.seed


def _mention_long_spans(model: Any, corpus: Corpus, progress: Progress) -> None:
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit is not None and corpus.counts.longest_span > limit:
        progress.say(
            f"Rows are up to {corpus.counts.longest_span} tokens long, and base_model was made for {limit}: "
            f"expect poor results beyond that, or set sequence_len: {limit}."
        )


def _run(trainer: BinTrainer, options: TrainOptions, seen: SeenTokens, progress: Progress) -> None:
    checkpoints = Path(str(trainer.args.output_dir))
    if trainer.args.should_save:
        remove_incomplete(checkpoints)
    newest = newest_complete(checkpoints)
    if newest is not None:
        progress.say(f"Continuing from the checkpoint of step {step_of(newest)} of {trainer.args.max_steps}.")
    with progress.task("train", total=trainer.args.max_steps, unit="steps") as task, watch_signals() as request:
        stop = StopOnRequest(request)
        for callback in (ShowProgress(task, seen), CompleteCheckpoints(checkpoints, options.save_total_limit), stop):
            trainer.add_callback(callback)
        trainer.train(resume_from_checkpoint=None if newest is None else str(newest))
    if stop.stopped:
        raise Interrupted(
            f"Training was asked to stop; it saved a checkpoint after step {trainer.state.global_step} of {trainer.args.max_steps}.",
            "Run the same command again to continue from there.",
        )


def _write(job: Job[TrainOptions], model: Any, lines: list[dict[str, int | float]], metrics: Metrics) -> None:
    trained = job.outputs["trained"]
    if job.options.adapter:
        write_adapter(model, trained.path)
    else:
        write_full(model, job.inputs["base"].path, trained.path)
    copy_tokenizer(job.inputs["tokenizer"].path, trained.path)
    write_log(trained.path / "log.csv", lines)
    trained.describe(**metrics)

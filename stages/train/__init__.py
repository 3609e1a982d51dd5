"""train: fine-tunes the base model, all of it or a LoRA adapter, on the packed bins.

Reads data/base (weights), data/tokenizer (pad token; its files are passed on), data/tokens (memory-mapped) and data/packed
(which spans of which rows share a sequence). Writes data/trained: a Hugging Face model folder or a PEFT adapter, the
tokenizer, ``log.csv`` and, where held-out rows are measured, ``eval.csv``. Checkpoints go to the job's scratch folder; a run that
was killed continues from the newest complete one and ends with the bytes it would have had without the kill.
"""

from __future__ import annotations

import logging
import os

from pipeline.models import quiet_libraries
from pipeline.options.views import TrainOptions
from pipeline.stage import Job, Metrics, Stage
from stages.train.loop.stopping import stopped_anywhere


def run(job: Job[TrainOptions]) -> Metrics:
    """Train and fill data/trained, in as many processes as ``train.num_processes`` says; see :mod:`stages.train.session`."""
    count = job.options.train.num_processes
    with stopped_anywhere():
        if count == 1 and not (job.options.deepspeed and "RANK" not in os.environ):  # DeepSpeed trains in processes that were launched
            return train_alone(job)
        from stages.train.processes import train_together

        return train_together(job, count)


def train_alone(job: Job[TrainOptions]) -> Metrics:
    """What one process does, on its own or as one of several. How far it can be had again is noted in the run record."""
    quiet_libraries()
    # accelerate imports it wherever it is installed, and then it sets its level itself.
    logging.getLogger("DeepSpeed").addFilter(_is_error)
    from stages.train.determinism import determinism
    from stages.train.launch import find_launch, take_gpu
    from stages.train.session import train

    with determinism(find_launch().world_size) as found:
        take_gpu()
        metrics = train(job)
    job.observed["determinism"] = found.report()
    return metrics


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


STAGE = Stage("train", TrainOptions, reads=("base", "tokenizer", "tokens", "packed"), writes=("trained",), run=run)

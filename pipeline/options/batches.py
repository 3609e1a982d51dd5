"""Batches, steps, checkpoints, evaluation cadence and the hub. Read by train."""

from __future__ import annotations

from typing import Literal

from pipeline.options.schema import LARGEST, Group, Nested, not_yet, option, refused, renamed

When = Literal["no", "steps", "epoch", "best"]


class Batches(Group):
    """How many rows (bins, when packed) make a step, and how many steps."""

    micro_batch_size: int = option(1, "Rows per forward pass and device.", ge=1, le=LARGEST)
    gradient_accumulation_steps: int = option(1, "Forward passes per optimizer step.", ge=1, le=LARGEST)
    num_epochs: float = option(1.0, "Passes over the training data.", gt=0, le=1_000_000)
    max_steps: int | None = option(None, "Stop after so many optimizer steps, whatever num_epochs says.", ge=1, le=LARGEST)
    batch_size: int | None = not_yet("Rows per optimizer step on all devices; gives gradient_accumulation_steps.", idle=(), ge=1)
    eval_batch_size: int | None = not_yet("Rows per forward pass while evaluating; default micro_batch_size.", idle=(), ge=1)
    auto_find_batch_size: bool | None = not_yet("Halve the batch when memory runs out.")


class Cadence(Group):
    """What is logged and kept."""

    logging_steps: int | None = option(
        None, "Steps between log lines; default 0.5 % of the steps, at least 1, at most 10.", ge=1, le=LARGEST
    )
    save_steps: int | None = option(None, "Steps between checkpoints; default one per epoch.", ge=1, le=LARGEST)
    save_total_limit: int = option(4, "Checkpoints kept while a run lasts.", ge=1)
    saves_per_epoch: int | None = not_yet("Checkpoints per epoch.", idle=(1,), ge=1)
    save_strategy: When | None = not_yet("When checkpoints are written: no, steps, epoch, best.", idle=("epoch", "steps"))
    save_first_step: bool | None = not_yet("Write a checkpoint after the first step, to see early that it works.")
    save_only_model: bool | None = not_yet("Checkpoints without optimizer state; they cannot be resumed.", False)
    save_safetensors: bool | None = refused(
        "Write safetensors files.", "other formats can run code when they are read", default=True, idle=()
    )
    eval_steps: int | float | None = not_yet("Steps between evaluations, or their share of all steps.", idle=(), gt=0)
    evals_per_epoch: int | None = not_yet("Evaluations per epoch.", idle=(0,), ge=0)
    eval_strategy: When | None = not_yet("When the evaluation rows are measured during training: no, steps, epoch.", idle=("no",))
    evaluation_strategy: str | None = renamed("eval_strategy")


class BestModel(Group):
    """Which checkpoint wins, and when to stop early."""

    load_best_model_at_end: bool | None = not_yet("Give out the best checkpoint instead of the last.", False)
    metric_for_best_model: str | None = not_yet("What best means; default the evaluation loss.")
    greater_is_better: bool | None = not_yet("Whether a larger metric is better.", idle=())
    early_stopping_patience: int | None = not_yet("Stop after so many evaluations without improvement.", idle=(), ge=1)


class DynamicCheckpoint(Nested):
    """A checkpoint on demand."""

    enabled: bool = not_yet("Look for the trigger file.", False)
    check_interval: int = not_yet("Steps between two looks.", 10, idle=(), ge=1)
    trigger_file_path: str = not_yet("Name of the trigger file.", "", idle=())


class CheckpointsElsewhere(Group):
    """Checkpoints on demand and on the hub."""

    dynamic_checkpoint: DynamicCheckpoint | None = not_yet("Write a checkpoint when a file appears.", idle=({}, {"enabled": False}))
    hub_model_id: str | None = not_yet("Hub model that checkpoints are uploaded to.", execution=True)
    hub_strategy: str | None = not_yet(
        "Which checkpoints are uploaded: end, every_save, checkpoint, all_checkpoints.", execution=True, idle=()
    )
    hub_revision: str | None = not_yet("Branch of the hub model that is uploaded to.", execution=True, newer=True)

"""Batches, steps, checkpoints, evaluation cadence and the hub. Read by train."""

from __future__ import annotations

from typing import Literal

from pipeline.options.schema import LARGEST, Group, Nested, option, refused, renamed

When = Literal["no", "steps", "epoch", "best"]


class Batches(Group):
    """How many rows (bins, when packed) make a step, and how many steps."""

    micro_batch_size: int = option(1, "Rows per forward pass and device.", ge=1, le=LARGEST)
    gradient_accumulation_steps: int = option(1, "Forward passes per optimizer step.", ge=1, le=LARGEST)
    num_epochs: float = option(1.0, "Passes over the training data.", gt=0, le=1_000_000)
    max_steps: int | None = option(None, "Stop after so many optimizer steps, whatever num_epochs says.", ge=1, le=LARGEST)
    batch_size: int | None = option(
        None, "Rows per optimizer step on all devices (in Axolotl: on each); gives gradient_accumulation_steps.", ge=1, le=LARGEST
    )
    eval_batch_size: int | None = option(
        None, "Rows per forward pass and device while evaluating; default micro_batch_size.", ge=1, le=LARGEST
    )
    auto_find_batch_size: bool = option(
        False,
        "When memory runs out, start again with half the micro batch and twice the accumulation: the global batch stays, "
        "and the result is that of a run with this micro_batch_size. One process only.",
    )


class Cadence(Group):
    """What is logged and kept."""

    logging_steps: int | None = option(
        None, "Steps between log lines; default 0.5 % of the steps, at least 1, at most 10.", ge=1, le=LARGEST
    )
    save_steps: int | float | None = option(
        None, "Steps between checkpoints, or below 1 their share of all steps; default one checkpoint per epoch.", gt=0, le=LARGEST
    )
    save_total_limit: int = option(4, "Checkpoints kept while a run lasts; the best one besides, when it is wanted.", execution=True, ge=1)
    saves_per_epoch: int | None = option(None, "Checkpoints per epoch, evenly spread; the last at its end.", ge=1, le=LARGEST)
    save_strategy: When | None = option(
        None,
        "When checkpoints are written: steps, epoch (the default), best (after an evaluation better than all before), "
        "or no (only when a run is asked to stop).",
    )
    save_first_step: bool = option(False, "Write a checkpoint after the first step, to see early that it works.", execution=True)
    save_only_model: bool = option(
        False, "Checkpoints without optimizer state. They cannot be resumed: a killed run starts anew.", execution=True
    )
    save_safetensors: bool | None = refused(
        "Write safetensors files.", "other formats can run code when they are read", default=True, idle=()
    )
    eval_steps: int | float | None = option(
        None, "Steps between evaluations on the held-out rows, or below 1 their share of all steps.", gt=0, le=LARGEST
    )
    evals_per_epoch: int | None = option(None, "Evaluations per epoch, evenly spread; the last at its end.", ge=0, le=LARGEST)
    eval_strategy: Literal["no", "steps", "epoch"] | None = option(
        None,
        "When the held-out rows are measured during training: no, steps, epoch. Not at all if no key of evaluations is set; "
        "otherwise before the first and after the last step too.",
    )
    evaluation_strategy: str | None = renamed("eval_strategy")


class BestModel(Group):
    """Which checkpoint wins, and when to stop early."""

    load_best_model_at_end: bool = option(False, "Give out the best checkpoint instead of the last.")
    metric_for_best_model: str | None = option(
        None, "What best means: eval_loss (the default), eval_perplexity or eval_accuracy (of held-out tokens); `eval_` may be left out."
    )
    greater_is_better: bool | None = option(None, "Whether a larger metric is better; default as the metric means it.")
    early_stopping_patience: int | None = option(
        None, "Stop after so many evaluations in a row that are not better than the best before.", ge=1, le=LARGEST
    )


class DynamicCheckpoint(Nested):
    """A checkpoint on demand."""

    enabled: bool = option(False, "Look for the trigger file, and heed SIGUSR1.", execution=True)
    check_interval: int = option(10, "Steps between two looks for the file; the signal is heeded after every step.", execution=True, ge=1)
    trigger_file_path: str = option(
        "checkpoint.save", "Name of the trigger file, in data/metrics/train. It is removed when it is seen.", execution=True
    )


class CheckpointsElsewhere(Group):
    """Checkpoints on demand and on the hub."""

    dynamic_checkpoint: DynamicCheckpoint | None = option(
        None,
        "Write a checkpoint when a file appears, or when the process gets SIGUSR1 (`kill -USR1 PID`; the run tells its PID), and go on.",
        execution=True,
    )
    hub_model_id: str | None = option(
        None,
        "Hub model that data/trained is uploaded to, with the token of `hf auth login` or HF_TOKEN. A new one is private.",
        execution=True,
        min_length=1,
    )
    hub_strategy: Literal["end", "every_save", "checkpoint", "all_checkpoints"] = option(
        "every_save",
        "What is uploaded besides the end: nothing, the weights of each checkpoint, also the newest checkpoint whole, or all of them.",
        execution=True,
    )
    hub_revision: str | None = option(None, "Branch that is uploaded to; default main.", execution=True, newer=True, min_length=1)

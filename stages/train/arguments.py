"""Options to transformers' TrainingArguments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from pipeline.options.views import TrainOptions
from stages.train.launch import Launch
from stages.train.precision import Precision
from stages.train.schedule import Schedule


def training_arguments(
    options: TrainOptions, schedule: Schedule, precision: Precision, launch: Launch, checkpoints: Path
) -> TrainingArguments:
    """Everything transformers is told. What regrow does itself is switched off: reports, bars, rotation of checkpoints."""
    cuda = torch.cuda.is_available()
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        max_steps=schedule.steps,
        warmup_steps=schedule.warmup_steps,
        save_strategy="steps",
        save_steps=schedule.save_steps,
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        use_cpu=not cuda,
        ddp_backend="gloo" if launch.world_size > 1 and not cuda else None,
        ddp_find_unused_parameters=False,
        dataloader_pin_memory=cuda,
        # Every step is logged, so that a resumed run can put together the same windows of log.csv.
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,
        # A checkpoint may go only after the next one is complete, which transformers does not know.
        save_total_limit=None,
        remove_unused_columns=False,
        report_to="none",
        disable_tqdm=True,
        log_level="error",
        log_level_replica="error",
        **_batches(options),
        **_optimization(options),
        **_activation_checkpointing(options),
    )
    if arguments.n_gpu > 1:
        # One process uses one GPU: nn.DataParallel would multiply the batch. More GPUs take a launcher such as torchrun.
        arguments._n_gpu = 1
    return arguments


def _batches(options: TrainOptions) -> dict[str, Any]:
    return {
        "per_device_train_batch_size": options.micro_batch_size,
        "gradient_accumulation_steps": options.gradient_accumulation_steps,
        "seed": options.seed,
    }


def _optimization(options: TrainOptions) -> dict[str, Any]:
    adam = {"adam_beta1": options.adam_beta1, "adam_beta2": options.adam_beta2, "adam_epsilon": options.adam_epsilon}
    return {
        "optim": options.optimizer,
        "learning_rate": options.learning_rate,
        "weight_decay": options.weight_decay,
        "max_grad_norm": options.max_grad_norm,
        "lr_scheduler_type": options.lr_scheduler,
        **{name: value for name, value in adam.items() if value is not None},
    }


def _activation_checkpointing(options: TrainOptions) -> dict[str, Any]:
    # The reentrant kind needs inputs that require gradients, which a frozen base model under an adapter has not.
    kwargs = {"use_reentrant": False} if options.gradient_checkpointing else None
    return {"activation_checkpointing": options.gradient_checkpointing, "activation_checkpointing_kwargs": kwargs}

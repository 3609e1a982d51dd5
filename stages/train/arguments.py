"""Options to transformers' TrainingArguments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import SchedulerType, TrainingArguments
from transformers.training_args import OptimizerNames

from pipeline.options.views import TrainOptions
from stages.train.launch import Launch
from stages.train.loop.best import criterion_of
from stages.train.loop.schedule import Schedule
from stages.train.model.compilation import settings_of
from stages.train.model.precision import Precision
from stages.train.sharding.settings import zero_settings


def training_arguments(
    options: TrainOptions,
    schedule: Schedule,
    precision: Precision,
    launch: Launch,
    checkpoints: Path,
    kind: type[TrainingArguments] = TrainingArguments,
    *,
    compiles: bool = False,
    **more: Any,
) -> TrainingArguments:
    """Everything transformers is told. What regrow does itself is switched off: reports, bars, rotation of checkpoints.

    ``kind``: the class that a trainer wants, with ``more`` settings of its own. ``compiles``: it is to compile the whole model.
    """
    cuda = torch.cuda.is_available()
    arguments = kind(
        output_dir=str(checkpoints),
        max_steps=schedule.steps,
        warmup_steps=schedule.warmup_steps,
        # What is due after a step is decided by callbacks.FollowSchedule.
        save_strategy="no",
        save_only_model=options.save_only_model,
        use_cpu=not cuda,
        ddp_backend="gloo" if launch.world_size > 1 and not cuda else None,
        ddp_find_unused_parameters=options.ddp_find_unused_parameters,
        ddp_bucket_cap_mb=options.ddp_bucket_cap_mb,
        ddp_broadcast_buffers=options.ddp_broadcast_buffers,
        ddp_timeout=options.ddp_timeout,
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
        **loading(options, cuda),
        **_evaluations(options, schedule),
        **_optimization(options),
        **_numbers(options, precision),
        **(_compilation(options) if compiles else {}),
        **_activation_checkpointing(options),
        **_sharding(options, precision, launch),
        **more,
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


def loading(options: TrainOptions, cuda: bool) -> dict[str, Any]:
    """How batches are prepared; none of it changes them."""
    copies = options.accelerator_config is not None and options.accelerator_config.non_blocking
    return {
        "dataloader_num_workers": options.dataloader_num_workers,
        # Page-locked memory is for copies to a GPU. Without one torch warns and does nothing.
        "dataloader_pin_memory": cuda and options.dataloader_pin_memory is not False,
        "dataloader_prefetch_factor": options.dataloader_prefetch_factor if options.dataloader_num_workers else None,
        "dataloader_drop_last": options.dataloader_drop_last,
        "accelerator_config": {"non_blocking": copies},
    }


def _evaluations(options: TrainOptions, schedule: Schedule) -> dict[str, Any]:
    if schedule.evaluations.interval is None:
        return {}
    criterion = criterion_of(options)
    return {
        "eval_strategy": "steps",  # schedulers that follow the loss ask for one
        "eval_steps": schedule.steps,
        "eval_on_start": True,
        "metric_for_best_model": criterion.metric,
        "greater_is_better": criterion.greater,
        "per_device_eval_batch_size": options.eval_batch_size or options.micro_batch_size,
    }


def _optimization(options: TrainOptions) -> dict[str, Any]:
    """Optimizer and schedule are made by the trainer; their names matter where transformers goes by them."""
    return {
        "optim": options.optimizer if options.optimizer in list(OptimizerNames) else OptimizerNames.ADAMW_TORCH,
        "learning_rate": options.learning_rate,
        "weight_decay": options.weight_decay,
        "max_grad_norm": options.max_grad_norm,
        "lr_scheduler_type": options.lr_scheduler if options.lr_scheduler in list(SchedulerType) else SchedulerType.CONSTANT,
    }


def _numbers(options: TrainOptions, precision: Precision) -> dict[str, Any]:
    """Autocast. A model that is held in 16 bits needs none, and DeepSpeed is told by itself."""
    autocast = precision in ("bf16", "fp8") and not options.deepspeed
    return {"bf16": autocast, "fp16": precision == "fp16", "tf32": options.tf32 if torch.cuda.is_available() else None}


def _sharding(options: TrainOptions, precision: Precision, launch: Launch) -> dict[str, Any]:
    return {"deepspeed": zero_settings(options, precision, launch.world_size)} if options.deepspeed else {}


def _compilation(options: TrainOptions) -> dict[str, Any]:
    return {"torch_compile": True} | {f"torch_compile_{name}": value for name, value in settings_of(options).items()}


def _activation_checkpointing(options: TrainOptions) -> dict[str, Any]:
    if not options.gradient_checkpointing:
        return {"activation_checkpointing": False}  # TRL's classes have it on by default
    # The reentrant kind needs inputs that require gradients, which a frozen base model under an adapter has not.
    kwargs = {"use_reentrant": False} | (options.gradient_checkpointing_kwargs or {})
    return {"activation_checkpointing": True, "activation_checkpointing_kwargs": kwargs}

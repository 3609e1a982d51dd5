"""Steps, batches, checkpoints, optimizer, schedule, precision and memory (C16 to C20, C25 to C27). Read by train alone."""

from __future__ import annotations

from typing import Literal

from pipeline.options.schema import Group, option

Optimizer = Literal["adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "adagrad", "rmsprop"]
Scheduler = Literal["linear", "cosine", "constant", "constant_with_warmup", "polynomial", "inverse_sqrt"]


class Batches(Group):
    """How many rows (bins, when packed) make a step, and how many steps."""

    micro_batch_size: int = option(1, "Rows per forward pass and device.", ge=1)
    gradient_accumulation_steps: int = option(1, "Forward passes per optimizer step.", ge=1)
    num_epochs: float = option(1.0, "Passes over the training data.", gt=0)
    max_steps: int | None = option(None, "Stop after so many optimizer steps, whatever num_epochs says.", ge=1)


class Cadence(Group):
    """What is logged and kept."""

    logging_steps: int | None = option(None, "Steps between log lines; default 0.5 % of the steps, at least 1, at most 10.", ge=1)
    save_steps: int | None = option(None, "Steps between checkpoints; default one per epoch.", ge=1)
    save_total_limit: int = option(4, "Checkpoints kept while a run lasts.", ge=1)


class Optimization(Group):
    """Optimizer and learning-rate schedule."""

    optimizer: Optimizer = option("adamw_torch_fused", "Optimizer, by its name in transformers.")
    learning_rate: float = option(..., "Peak learning rate.", gt=0)
    weight_decay: float = option(0.0, "Decoupled weight decay.", ge=0)
    adam_beta1: float | None = option(None, "Adam's first moment decay.", ge=0, lt=1)
    adam_beta2: float | None = option(None, "Adam's second moment decay.", ge=0, lt=1)
    adam_epsilon: float | None = option(None, "Adam's epsilon.", gt=0)
    max_grad_norm: float = option(1.0, "Clip the gradient's norm to this.", ge=0)
    lr_scheduler: Scheduler = option("cosine", "Learning-rate schedule, by its name in transformers.")
    warmup_steps: int | None = option(None, "Steps of linear warm-up; default 3 % of the steps, at most 100.", ge=0)
    warmup_ratio: float | None = option(None, "Share of the steps used for warm-up.", ge=0, lt=1)


class Precision(Group):
    """Numbers the model is computed in."""

    bf16: Literal["auto"] | bool = option("auto", "bfloat16 autocast; `auto` takes it on a GPU that supports it and fp32 elsewhere.")
    fp16: bool = option(False, "float16 autocast; needs a GPU.")
    gradient_checkpointing: bool = option(False, "Recompute activations in the backward pass instead of keeping them.")
    attn_implementation: Literal["sdpa", "eager"] | None = option(None, "Attention kernel; default sdpa.")

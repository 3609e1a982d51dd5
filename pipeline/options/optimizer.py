"""Optimizers and parameter groups. Read by train."""

from __future__ import annotations

from typing import Any, Literal

from pipeline.options.schema import Group, Nested, not_yet, option

OptimizerName = Literal["adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "adagrad", "rmsprop"]

OPTIMIZERS_TO_COME = (
    *("adamw_8bit", "adamw_anyprecision", "adamw_apex_fused", "adamw_bnb_8bit", "adamw_hf", "adamw_torch_4bit", "adamw_torch_8bit"),
    *(
        "adamw_torch_npu_fused",
        "adamw_torch_xla",
        "ademamix",
        "ademamix_8bit",
        "adopt_adamw",
        "ao_adamw_4bit",
        "ao_adamw_8bit",
        "ao_adamw_fp8",
    ),
    *("apollo_adamw", "apollo_adamw_layerwise", "came_pytorch", "dion", "flash_*", "galore_*", "grokadamw", "lion_32bit", "lion_8bit"),
    *(
        "lomo",
        "adalomo",
        "muon",
        "optimi_adamw",
        "paged_*",
        "q_galore_adamw8bit",
        "rmsprop_bnb*",
        "schedule_free_*",
        "sinkgd",
        "stable_adamw",
    ),
)
"""Other names in transformers, and those Axolotl adds."""


class ParameterGroup(Nested):
    """Parameters with a learning rate of their own. All three keys are required."""

    name: str = not_yet("A label for logs.", ...)
    modules: list[str] = not_yet("Parts of parameter names; the first group with a match takes the parameter.", ..., min_length=1)
    lr: float = not_yet("Learning rate of the group.", ..., gt=0)


class Optimization(Group):
    """Optimizer and learning rates."""

    optimizer: OptimizerName = option("adamw_torch_fused", "Optimizer, by its name in transformers.", later=OPTIMIZERS_TO_COME)
    learning_rate: float = option(..., "Peak learning rate.", gt=0)
    weight_decay: float = option(0.0, "Decoupled weight decay.", ge=0)
    adam_beta1: float | None = option(None, "Adam's first moment decay.", ge=0, lt=1)
    adam_beta2: float | None = option(None, "Adam's second moment decay.", ge=0, lt=1)
    adam_epsilon: float | None = option(None, "Adam's epsilon.", gt=0)
    max_grad_norm: float = option(1.0, "Clip the gradient's norm to this.", ge=0)
    adam_beta3: float | None = not_yet("CAME: decay of the confidence.", idle=(), ge=0, lt=1)
    adam_epsilon2: float | None = not_yet("CAME: second epsilon.", idle=(), gt=0)
    optim_args: str | dict[str, Any] | None = not_yet("Further arguments of the optimizer.", idle=({}, ""))
    optim_target_modules: list[str] | Literal["all_linear"] | None = not_yet("GaLore and the like: modules that are projected.", idle=([],))
    torchdistx_path: str | None = not_yet("adamw_anyprecision: where torchdistx is.")
    embedding_lr: float | None = not_yet("Learning rate of embeddings and output head.", idle=(), gt=0)
    embedding_lr_scale: float | None = not_yet("The same as a multiple of learning_rate.", idle=(1,), gt=0)
    lr_groups: list[ParameterGroup] | None = not_yet("Parameters with learning rates of their own.", idle=([],))
    loraplus_lr_ratio: float | None = not_yet("LoRA+: learning rate of B as a multiple of A's.", idle=(), gt=0)
    loraplus_lr_embedding: float | None = not_yet("LoRA+: learning rate of adapted embeddings.", 1e-6, idle=(), gt=0)
    dion_lr: float | None = not_yet("Dion: learning rate of matrices; learning_rate is for the rest.", idle=(), gt=0)
    dion_momentum: float | None = not_yet("Dion: momentum.", idle=(), ge=0, lt=1)
    dion_rank_fraction: float | None = not_yet("Dion: rank as a share of a matrix's smaller side.", 1.0, idle=(), gt=0, le=1)
    dion_rank_multiple_of: int | None = not_yet("Dion: rank is rounded up to a multiple of this.", 1, idle=(), ge=1)

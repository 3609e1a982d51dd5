"""Optimizers and parameter groups. Read by train."""

from __future__ import annotations

from typing import Any, Literal

from pipeline.optimizers import EXTRAS, GONE
from pipeline.options.schema import Group, Nested, option, refused

OptimizerName = Literal[
    "adamw_torch",
    "adamw_torch_fused",
    "adafactor",
    "sgd",
    "adagrad",
    "rmsprop",
    "muon",
    "dion",
    "sinkgd",
    "adopt_adamw",
    "adamw_8bit",
    "adamw_bnb_8bit",
    "ademamix",
    "ademamix_8bit",
    "lion_32bit",
    "lion_8bit",
    "paged_adamw_32bit",
    "paged_adamw_8bit",
    "paged_ademamix_32bit",
    "paged_ademamix_8bit",
    "paged_lion_32bit",
    "paged_lion_8bit",
    "rmsprop_bnb",
    "rmsprop_bnb_8bit",
    "rmsprop_bnb_32bit",
    "adamw_torch_4bit",
    "adamw_torch_8bit",
    "ao_adamw_4bit",
    "ao_adamw_8bit",
    "ao_adamw_fp8",
    "galore_adamw",
    "galore_adamw_8bit",
    "galore_adafactor",
    "galore_adamw_layerwise",
    "galore_adamw_8bit_layerwise",
    "galore_adafactor_layerwise",
    "apollo_adamw",
    "apollo_adamw_layerwise",
    "lomo",
    "grokadamw",
    "schedule_free_adamw",
    "schedule_free_radam",
    "schedule_free_sgd",
    "stable_adamw",
    "optimi_adamw",
    "came_pytorch",
    "lion",
    "lion_pytorch",
    "flash_adamw",
    "flash_adam",
    "flash_sgd",
    "flash_sgdw",
    "flash_lion",
]

OPTIMIZERS_TO_COME = ("adamc", "muon_8bit", "polora", "scao")
"""Names that newer versions of Axolotl add."""


class ParameterGroup(Nested):
    """Parameters with a learning rate of their own. All three keys are required."""

    name: str = option(..., "A label for messages.", execution=True)
    modules: list[str] = option(..., "Parts of parameter names; the first group with a match takes the parameter.", min_length=1)
    lr: float = option(..., "Peak learning rate of the group.", gt=0)


class Optimization(Group):
    """Optimizer and learning rates."""

    optimizer: OptimizerName = option(
        "adamw_torch_fused",
        "Optimizer, by its name in transformers or Axolotl.",
        extras=EXTRAS,
        later=OPTIMIZERS_TO_COME,
        gone=GONE,
    )
    learning_rate: float = option(..., "Peak learning rate.", gt=0)
    weight_decay: float = option(0.0, "Weight decay of all but norms and biases.", ge=0)
    adam_beta1: float | None = option(None, "Adam's first moment decay.", ge=0, lt=1)
    adam_beta2: float | None = option(None, "Adam's second moment decay.", ge=0, lt=1)
    adam_epsilon: float | None = option(None, "Adam's epsilon.", gt=0)
    max_grad_norm: float = option(1.0, "Clip the gradient's norm to this.", ge=0)
    adam_beta3: float | None = option(None, "CAME: decay of the confidence; AdEMAMix: decay of its slow average.", ge=0, lt=1)
    adam_epsilon2: float | None = option(None, "CAME: epsilon of the confidence.", gt=0)
    optim_args: str | dict[str, Any] | None = option(
        None, "Further arguments of the optimizer: a mapping, or text such as `rank=64,scale=0.5`."
    )
    optim_target_modules: list[str] | Literal["all_linear"] | None = option(
        None, "GaLore and APOLLO: linear layers whose gradients are projected, by name or regular expression."
    )
    torchdistx_path: str | None = refused(
        "Where torchdistx is, for adamw_anyprecision.", "torchdistx is archived and does not build for this torch"
    )
    embedding_lr: float | None = option(None, "Learning rate of embeddings and output head, which then have no weight decay.", gt=0)
    embedding_lr_scale: float | None = option(None, "The same as a multiple of learning_rate.", gt=0)
    lr_groups: list[ParameterGroup] | None = option(None, "Parameters with learning rates of their own.")
    loraplus_lr_ratio: float | None = option(None, "LoRA+: learning rate of B as a multiple of A's.", gt=0)
    loraplus_lr_embedding: float = option(1e-6, "LoRA+: learning rate of adapted embeddings.", gt=0)
    dion_lr: float | None = option(None, "Dion: learning rate of matrices; learning_rate is for the rest.", gt=0)
    dion_momentum: float | None = option(None, "Dion: momentum; default 0.95.", ge=0, lt=1)
    dion_rank_fraction: float = option(1.0, "Dion: rank as a share of a matrix's smaller side.", gt=0, le=1)
    dion_rank_multiple_of: int = option(1, "Dion: rank is rounded up to a multiple of this.", ge=1, le=65536)

"""Rules about optimizers and the parameters that they train."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pipeline.optimizers import OPTIMIZERS
from pipeline.options.rules.broken import Broken, broken
from pipeline.options.views import RecipeOptions

_RATES = ("lr_groups", "embedding_lr", "embedding_lr_scale", "loraplus_lr_ratio")


def one_rate_per_parameter(options: RecipeOptions) -> Iterator[Broken]:
    """Groups and LoRA+ both set rates; so do both keys for embeddings."""
    if options.lr_groups and options.loraplus_lr_ratio:
        yield broken("lr_groups loraplus_lr_ratio", "loraplus_lr_ratio is set too, and both set learning rates", "remove one of them")
    if options.embedding_lr is not None and options.embedding_lr_scale is not None:
        yield broken("embedding_lr_scale embedding_lr", "embedding_lr is set too", "remove one of them")


def loraplus_trains_lora(options: RecipeOptions) -> Iterator[Broken]:
    """The ratio is that of LoRA's two matrices."""
    if options.loraplus_lr_ratio is not None and options.adapter is None:
        yield broken("loraplus_lr_ratio adapter", "there is no adapter", "add `adapter: lora`, or remove it")


def projections_have_targets(options: RecipeOptions) -> Iterator[Broken]:
    """GaLore and APOLLO project gradients of whole matrices."""
    if not OPTIMIZERS[options.optimizer].projection:
        return
    if not options.optim_target_modules:
        yield broken(
            "optimizer optim_target_modules",
            f"{options.optimizer} projects the gradients of chosen layers",
            "add `optim_target_modules: all_linear`",
        )
    if options.adapter is not None:
        yield broken(
            "optimizer adapter", f"{options.optimizer} is for whole matrices, and an adapter's are small", "write adamw_torch_fused"
        )


def projected_layers_are_patterns(options: RecipeOptions) -> Iterator[Broken]:
    """A name that no layer holds is tried as a regular expression."""
    targets = options.optim_target_modules if isinstance(options.optim_target_modules, list) else []
    for number, target in enumerate(targets):
        try:
            re.compile(target)
        except re.error as error:
            wrong = f"not a regular expression ({error})"
            yield broken(f"optim_target_modules.{number}", wrong, "correct it, or write a part of a name, such as mlp")


def used_gradients_are_gone(options: RecipeOptions) -> Iterator[Broken]:
    """Weights that change during the backward pass leave no gradient to add up, to measure or to scale."""
    if OPTIMIZERS[options.optimizer].updates == "at the end":
        return
    wrong = f"{options.optimizer} uses each gradient up in the backward pass"
    if options.gradient_accumulation_steps > 1 or options.batch_size not in (None, options.micro_batch_size):
        yield broken("gradient_accumulation_steps batch_size optimizer", wrong, "write `gradient_accumulation_steps: 1`")
    if options.auto_find_batch_size:
        yield broken("auto_find_batch_size optimizer", f"{wrong}, and smaller batches would have to add some up", "remove it")
    if options.max_grad_norm:
        yield broken(
            "max_grad_norm optimizer", f"{wrong}, before the norm of all of them is known", "write `max_grad_norm: 0`: nothing is clipped"
        )
    if options.train.num_processes > 1:
        yield broken("optimizer train.num_processes", f"{wrong}, before processes could share theirs", "write adafactor, or train with one")
    if options.fp16:
        yield broken("fp16 optimizer", f"{wrong}, before it could be unscaled", "write `bf16: auto` instead")


def some_optimizers_have_one_rate(options: RecipeOptions) -> Iterator[Broken]:
    """LOMO goes through the model by itself."""
    for key in _RATES:
        if OPTIMIZERS[options.optimizer].own_loop and getattr(options, key):
            yield broken(f"{key} optimizer", f"{options.optimizer} has one learning rate for all", "remove it")


def matrices_are_whole(options: RecipeOptions) -> Iterator[Broken]:
    """Orthogonal and balanced updates need all rows and columns of a matrix."""
    if not OPTIMIZERS[options.optimizer].matrices:
        return
    if options.deepspeed:
        yield broken("optimizer deepspeed", f"{options.optimizer} needs whole matrices, which DeepSpeed splits", "write adamw_torch_fused")
    if options.fsdp_config is not None:
        yield broken("optimizer fsdp_config", f"{options.optimizer} needs whole matrices, which FSDP splits", "write adamw_torch_fused")


def dion_has_two_rates(options: RecipeOptions) -> Iterator[Broken]:
    """Its updates of matrices have another size than AdamW's."""
    if options.optimizer == "dion" and options.dion_lr is None:
        yield broken("optimizer dion_lr", "dion_lr, the learning rate of matrices, is not set", "add it, for example 0.01")


OPTIMIZER = (
    one_rate_per_parameter,
    loraplus_trains_lora,
    projections_have_targets,
    projected_layers_are_patterns,
    used_gradients_are_gone,
    some_optimizers_have_one_rate,
    matrices_are_whole,
    dion_has_two_rates,
)

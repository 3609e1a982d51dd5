"""Rules about adapters, weights in few bits, and ReLoRA."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pipeline.options.rules.broken import Broken, broken
from pipeline.options.views import RecipeOptions


def one_way_to_name_targets(options: RecipeOptions) -> Iterator[Broken]:
    """A regular expression names modules exactly; nothing can be added to it."""
    pattern = options.lora_target_modules
    if options.lora_target_linear and isinstance(pattern, str) and pattern != "all-linear":
        yield broken(
            "lora_target_linear lora_target_modules",
            "lora_target_modules is a regular expression, which it cannot add to",
            "remove one of them",
        )


def targets_are_a_pattern(options: RecipeOptions) -> Iterator[Broken]:
    """One text is one regular expression, matched with the whole module name."""
    if isinstance(options.lora_target_modules, str):
        try:
            re.compile(options.lora_target_modules)
        except re.error as error:
            yield broken("lora_target_modules", f"not a regular expression ({error})", "correct it, or write a list of names")


def few_bits_need_an_adapter(options: RecipeOptions) -> Iterator[Broken]:
    """Weights in few bits cannot be trained themselves."""
    for key in ("load_in_8bit", "load_in_4bit", "gptq"):
        if getattr(options, key) and options.adapter is None:
            yield broken(f"{key} adapter", "weights in few bits cannot be trained", "add an adapter, or remove it")


def one_number_of_bits(options: RecipeOptions) -> Iterator[Broken]:
    """A weight is held in one way."""
    ways = [key for key in ("load_in_8bit", "load_in_4bit", "gptq", "model_quantization_config") if getattr(options, key)]
    if len(ways) > 1:
        yield broken(f"{ways[1]} {ways[0]}", f"{ways[0]} is set too, and weights are held in one way", "remove one of them")


def gptq_has_no_revision(options: RecipeOptions) -> Iterator[Broken]:
    """The loader of GPTQ models takes no revision."""
    if options.gptq and options.revision_of_model:
        yield broken(
            "gptq revision_of_model",
            "the loader of GPTQ models takes no revision",
            "download that revision and name its folder in base_model",
        )


def layer_names_count_layers(options: RecipeOptions) -> Iterator[Broken]:
    """The pattern says where the numbers count."""
    if options.peft_layers_pattern and not options.peft_layers_to_transform:
        yield broken("peft_layers_pattern peft_layers_to_transform", "peft_layers_to_transform is not set", "set it, or remove the pattern")


def one_choice_of_layers(options: RecipeOptions) -> Iterator[Broken]:
    """Unfrozen weights and adapted layers are two ways of training."""
    if options.unfrozen_parameters and options.peft_layers_to_transform:
        wrong = "peft_layers_to_transform is set too, and both choose what is trained"
        yield broken("unfrozen_parameters peft_layers_to_transform", wrong, "remove one of them")
    if options.unfrozen_parameters and options.adapter is not None:
        yield broken("unfrozen_parameters adapter", "an adapter freezes all other weights", "remove one of them")


def partly_frozen_recomputes_plainly(options: RecipeOptions) -> Iterator[Broken]:
    """Reentrant checkpointing needs gradients at the input."""
    if options.unfrozen_parameters and (options.gradient_checkpointing_kwargs or {}).get("use_reentrant"):
        yield broken(
            "gradient_checkpointing_kwargs unfrozen_parameters",
            "reentrant checkpointing needs all layers trained",
            "write `use_reentrant: false`",
        )


def parameters_have_no_dropout(options: RecipeOptions) -> Iterator[Broken]:
    """PEFT adapts parameters without calling a module."""
    if options.lora_target_parameters and options.lora_dropout:
        yield broken(
            "lora_dropout lora_target_parameters", "parameters are adapted without a module to drop inputs of", "write `lora_dropout: 0`"
        )


def kernels_fuse_lora(options: RecipeOptions) -> Iterator[Broken]:
    """The kernels are written for LoRA on plain weights."""
    for key in ("lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel"):
        if not getattr(options, key):
            continue
        if options.adapter is None:
            yield broken(f"{key} adapter", "there is no adapter", "remove it")
        for other in ("load_in_8bit", "trust_remote_code"):
            if getattr(options, other):
                yield broken(f"{key} {other}", f"does not work with {other}", f"remove {key}")


def fused_mlp_has_no_lora(options: RecipeOptions) -> Iterator[Broken]:
    """The fused MLP has no modules to adapt."""
    if options.flash_attn_fuse_mlp and options.adapter is not None:
        yield broken("flash_attn_fuse_mlp adapter", "the fused MLP has no modules to adapt", "remove it")


def relora_restarts_lora(options: RecipeOptions) -> Iterator[Broken]:
    """ReLoRA merges a LoRA adapter at each restart."""
    if not options.relora:
        return
    if options.jagged_restart_steps is None:
        yield broken("relora jagged_restart_steps", "jagged_restart_steps is not set", "add it, for example 150")
    if options.adapter is None:
        yield broken("relora adapter", "there is no adapter to merge", "add `adapter: lora`")
    for other in ("fsdp_config", "deepspeed", "flash_attn_fuse_mlp"):
        if getattr(options, other):
            yield broken(f"relora {other}", f"does not work with {other}", "remove one of them")
    if not options.optimizer.startswith("adam"):
        yield broken("optimizer relora", "relora cuts the state of Adam", "write `optimizer: adamw_torch_fused`")


LEARNING = (
    one_way_to_name_targets,
    targets_are_a_pattern,
    few_bits_need_an_adapter,
    one_number_of_bits,
    gptq_has_no_revision,
    layer_names_count_layers,
    one_choice_of_layers,
    partly_frozen_recomputes_plainly,
    parameters_have_no_dropout,
    kernels_fuse_lora,
    fused_mlp_has_no_lora,
    relora_restarts_lora,
)

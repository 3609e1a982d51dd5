"""Rules about preferences, rewards and generated answers."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.options.rules.broken import Broken, broken
from pipeline.options.views import RecipeOptions


def one_beta(options: RecipeOptions) -> Iterator[Broken]:
    """Both name the same number."""
    if options.trl is not None and options.trl.beta is not None and options.rl_beta not in (None, options.trl.beta):
        yield broken("rl_beta trl.beta", f"trl.beta is {options.trl.beta}, and both mean the same", "remove one of them")


def one_kind_of_model(options: RecipeOptions) -> Iterator[Broken]:
    """A model answers, or judges answers, or judges steps."""
    kinds = [key for key in ("rl", "reward_model", "process_reward_model") if getattr(options, key)]
    if len(kinds) > 1:
        yield broken(f"{kinds[1]} {kinds[0]}", f"{kinds[0]} is set too, and one model is trained", "remove one of them")


def losses_have_weights(options: RecipeOptions) -> Iterator[Broken]:
    """One weight for each loss."""
    losses = options.dpo_loss_type if isinstance(options.dpo_loss_type, list) else [options.dpo_loss_type or "sigmoid"]
    if options.dpo_loss_weights and len(options.dpo_loss_weights) != len(losses):
        yield broken("dpo_loss_weights dpo_loss_type", f"there are {len(losses)} losses", f"write {len(losses)} weights")


def rewards_are_given(options: RecipeOptions) -> Iterator[Broken]:
    """Generated answers must be scored."""
    functions = (options.trl.reward_funcs if options.trl is not None else None) or []
    if options.rl in ("grpo", "gdpo") and not functions:
        yield broken("rl trl.reward_funcs", "nothing scores the generated answers", "list dotted names of functions under trl.reward_funcs")
    weights = options.trl.reward_weights if options.trl is not None else None
    if weights and len(weights) != len(functions):
        yield broken(
            "trl.reward_weights trl.reward_funcs", f"there are {len(functions)} reward functions", f"write {len(functions)} weights"
        )


def long_contexts_use_the_plain_loss(options: RecipeOptions) -> Iterator[Broken]:
    """The fused GRPO loss sees whole sequences only."""
    if options.rl == "grpo" and (options.context_parallel_size or 1) > 1 and options.trl is not None and options.trl.use_liger_kernel:
        yield broken(
            "trl.use_liger_kernel context_parallel_size", "the fused loss needs whole sequences", "write `use_liger_kernel: false`"
        )


def sleeping_needs_company(options: RecipeOptions) -> Iterator[Broken]:
    """A server of its own has memory of its own."""
    if options.trl is not None and options.trl.vllm_enable_sleep_mode and options.trl.vllm_mode == "server":
        yield broken("trl.vllm_enable_sleep_mode trl.vllm_mode", "a server of its own shares no memory", "write `vllm_mode: colocate`")


def labels_fit_the_head(options: RecipeOptions) -> Iterator[Broken]:
    """A reward is one number; a step is right or wrong."""
    wanted = 1 if options.reward_model else 2 if options.process_reward_model else None
    if options.num_labels is not None and wanted is not None and options.num_labels != wanted:
        yield broken("num_labels", f"this kind of model has {wanted}", f"write {wanted}, or remove it")


PREFERENCE = (
    one_beta,
    one_kind_of_model,
    losses_have_weights,
    rewards_are_given,
    long_contexts_use_the_plain_loss,
    sleeping_needs_company,
    labels_fit_the_head,
)

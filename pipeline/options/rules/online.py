"""Rules about learning from answers that the model generates (GRPO)."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.options.online import Trl, VllmServer
from pipeline.options.rules.broken import Broken, broken
from pipeline.options.views import RecipeOptions

_BY_TOKENS = ("bnpo", "dr_grpo", "dapo", "cispo")
"""Losses that sum over tokens: a long answer weighs more than a short one."""


def _generates(options: RecipeOptions) -> bool:
    return options.rl in ("grpo", "gdpo")


def _trl(options: RecipeOptions) -> Trl:
    return options.trl or Trl()


def _beta(options: RecipeOptions) -> float:
    beta = _trl(options).beta
    return (options.rl_beta or 0.0) if beta is None else beta


def answers_to_a_prompt_stay_together(options: RecipeOptions) -> Iterator[Broken]:
    """A step compares all answers to a prompt. ``batch_size`` says how many answers a step takes, whatever number of processes."""
    each = _trl(options).num_generations
    if _generates(options) and options.batch_size is not None and options.batch_size % each:
        wrong = f"a step of {options.batch_size} answers cannot hold {each} for each prompt (trl.num_generations)"
        yield broken("batch_size trl.num_generations rl", wrong, f"write {_multiple(options.batch_size, each)}")


def _multiple(batch: int, each: int) -> int:
    return batch + each - batch % each


def prompts_are_whole(options: RecipeOptions) -> Iterator[Broken]:
    """The end of a prompt is what asks for the answer."""
    if _generates(options) and options.excess_length_strategy == "truncate":
        wrong = f"the end of a prompt is what rl: {options.rl} answers, and cannot be cut off"
        yield broken("excess_length_strategy rl", wrong, "write drop or raise")


def references_that_follow_exist(options: RecipeOptions) -> Iterator[Broken]:
    """Only a model of its own can follow."""
    if _generates(options) and _trl(options).sync_ref_model:
        if not _beta(options):
            yield broken("trl.sync_ref_model trl.beta", "without trl.beta there is no reference", "add `beta: 0.04` to trl")
        if options.adapter is not None:
            wrong = "under an adapter the reference is the base model, which stays"
            yield broken("trl.sync_ref_model adapter", wrong, "remove it, or the adapter")


def references_stay(options: RecipeOptions) -> Iterator[Broken]:
    """ReLoRA changes the weights under the adapter, which are the reference."""
    if _generates(options) and options.relora and _beta(options):
        wrong = "it changes the weights under the adapter, which are the reference that trl.beta holds to"
        yield broken("relora trl.beta rl_beta", wrong, "write `relora: false`, or remove beta")


def answers_have_no_layout(options: RecipeOptions) -> Iterator[Broken]:
    """What is trained is generated, so how rows of data/packed are laid out is no matter."""
    for key in ("batch_flattening", "use_pose", "pad_to_sequence_len", "group_by_length", "train_on_inputs"):
        if _generates(options) and getattr(options, key) is True:
            yield broken(f"{key} rl", f"it has no meaning for answers that are generated (rl: {options.rl})", f"write `{key}: false`")


def reasoning_is_told_by_a_parser(options: RecipeOptions) -> Iterator[Broken]:
    """vLLM separates nothing without one."""
    if options.vllm is not None and options.vllm.enable_reasoning and options.vllm.reasoning_parser is None:
        wrong = "nothing says how reasoning is recognised"
        yield broken("vllm.enable_reasoning", wrong, "set vllm.reasoning_parser, for example deepseek_r1")


ONLINE = (
    answers_to_a_prompt_stay_together,
    prompts_are_whole,
    references_that_follow_exist,
    references_stay,
    answers_have_no_layout,
    reasoning_is_told_by_a_parser,
)


def steps_hold_whole_groups(options: RecipeOptions) -> Iterator[Broken]:
    """How many processes there will be is not known before; most often it is one."""
    answers, each = options.micro_batch_size * options.gradient_accumulation_steps, _trl(options).num_generations
    if _generates(options) and options.batch_size is None and answers % each:
        wrong = f"one process takes {answers} answers a step, which cannot hold {each} for each prompt (trl.num_generations)"
        works = f"write `micro_batch_size: {_multiple(options.micro_batch_size, each)}`, or start enough processes"
        yield broken("micro_batch_size gradient_accumulation_steps trl.num_generations rl", wrong, works)


def generation_has_effect(options: RecipeOptions) -> Iterator[Broken]:
    """Most of the block is GRPO's."""
    if options.trl is not None and not _generates(options):
        for key in sorted(options.trl.model_fields_set - {"beta"}):
            if getattr(options.trl, key) not in (None, False, []):
                yield broken(f"trl.{key}", "has no effect without `rl: grpo`", "add `rl: grpo`, or remove it")
    trl = _trl(options)
    for key in ("vllm_mode", "vllm_server_host", "vllm_server_port", "vllm_server_timeout", "vllm_guided_decoding_regex"):
        if _generates(options) and not trl.use_vllm and key in trl.model_fields_set:
            yield broken(f"trl.{key}", "has no effect without `use_vllm: true`", "add it, or remove this")
    if options.vllm is not None and options.vllm != VllmServer() and not _generates(options):
        yield broken("vllm", "has no effect without `rl: grpo`", "remove it")


def whole_answers_weigh_the_same(options: RecipeOptions) -> Iterator[Broken]:
    """Losses by tokens weigh answers by their length, which whole answers' ratios are meant to avoid."""
    trl = _trl(options)
    if _generates(options) and trl.importance_sampling_level == "sequence" and trl.loss_type in _BY_TOKENS:
        wrong = f"loss_type {trl.loss_type} sums over tokens, so long answers weigh more"
        yield broken("trl.importance_sampling_level trl.loss_type", wrong, "write `loss_type: grpo`, as GSPO has it")
    if _generates(options) and trl.importance_sampling_level == "token" and trl.loss_type == "luspo":
        wrong = "luspo is meant for ratios of whole answers"
        yield broken("trl.loss_type trl.importance_sampling_level", wrong, "write `importance_sampling_level: sequence`")


ONLINE_ADVICE = (steps_hold_whole_groups, generation_has_effect, whole_answers_weigh_the_same)
"""Printed, and never an error."""

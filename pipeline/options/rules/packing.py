"""Rules about packing and positions."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.options.rules.broken import Broken, broken
from pipeline.options.views import RecipeOptions


def pairs_are_not_packed(options: RecipeOptions) -> Iterator[Broken]:
    """Preference training compares whole rows."""
    for key in ("sample_packing", "eval_sample_packing"):
        if getattr(options, key) and options.rl:
            yield broken(f"{key} rl", f"rl: {options.rl} compares rows, which cannot share a bin", f"write `{key}: false`")


def judged_rows_are_not_packed(options: RecipeOptions) -> Iterator[Broken]:
    """A reward belongs to one row."""
    for key in ("sample_packing", "eval_sample_packing"):
        if getattr(options, key) and options.reward_model:
            yield broken(f"{key} reward_model", "a reward belongs to one row", f"write `{key}: false`")


def generation_is_not_packed(options: RecipeOptions) -> Iterator[Broken]:
    """Prompts are cut out of single rows."""
    if options.do_causal_lm_eval and options.eval_sample_packing:
        yield broken(
            "do_causal_lm_eval eval_sample_packing", "it cuts prompts out of rows that are not packed", "write `eval_sample_packing: false`"
        )


def flattening_is_no_packing(options: RecipeOptions) -> Iterator[Broken]:
    """Both join rows."""
    if options.batch_flattening and options.sample_packing:
        yield broken("batch_flattening sample_packing", "sample_packing joins rows already", "remove batch_flattening")


def flattening_needs_varlen(options: RecipeOptions) -> Iterator[Broken]:
    """Joined rows are kept apart by the kernel alone."""
    if options.batch_flattening is True and options.attn_implementation in (None, "sdpa", "eager"):
        wrong = "rows without padding are kept apart by FlashAttention only"
        yield broken("batch_flattening attn_implementation", wrong, "write `attn_implementation: flash_attention_2`")


def skips_lengthen(options: RecipeOptions) -> Iterator[Broken]:
    """Skipped positions reach beyond the row."""
    if options.use_pose and options.pose_max_context_len is not None and options.pose_max_context_len < options.sequence_len:
        wrong = f"less than sequence_len {options.sequence_len}, so nothing can be skipped"
        yield broken("pose_max_context_len sequence_len", wrong, f"write more than {options.sequence_len}")
    if options.use_pose and options.pose_max_context_len is None:
        yield broken("use_pose pose_max_context_len", "pose_max_context_len is not set", "set it to the context length to train for")


def skips_in_bins(options: RecipeOptions) -> Iterator[Broken]:
    """Positions are made where bins are."""
    if options.use_pose and not options.sample_packing:
        yield broken("use_pose sample_packing", "positions are made while packing", "add `sample_packing: true`")


def short_rows_remain(options: RecipeOptions) -> Iterator[Broken]:
    """Rows between both limits are what is trained."""
    if options.min_sample_len > options.sequence_len:
        wrong = f"more than sequence_len {options.sequence_len}, so every row is dropped"
        yield broken("min_sample_len sequence_len", wrong, f"write at most {options.sequence_len}")


PACKING = (
    pairs_are_not_packed,
    judged_rows_are_not_packed,
    generation_is_not_packed,
    flattening_is_no_packing,
    flattening_needs_varlen,
    skips_lengthen,
    skips_in_bins,
    short_rows_remain,
)

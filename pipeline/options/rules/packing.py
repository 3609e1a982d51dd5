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


def flattening_is_no_packing(options: RecipeOptions) -> Iterator[Broken]:
    """Both join rows."""
    if options.batch_flattening and options.sample_packing:
        yield broken("batch_flattening sample_packing", "sample_packing joins rows already", "remove batch_flattening")


def joined_rows_have_one_length(options: RecipeOptions) -> Iterator[Broken]:
    """Joining saves what padding to a fixed length adds."""
    joined = "batch_flattening" if options.batch_flattening is True else "multipack_real_batches"
    if options.pad_to_sequence_len and (options.batch_flattening is True or options.multipack_real_batches is False):
        wrong = f"pads every row to sequence_len, and {joined} joins rows without padding"
        yield broken(f"pad_to_sequence_len {joined}", wrong, "write `pad_to_sequence_len: false`")


def real_batches_are_of_bins(options: RecipeOptions) -> Iterator[Broken]:
    """Without bins, it is batch_flattening that joins rows."""
    if options.multipack_real_batches is False and not options.sample_packing:
        yield broken("multipack_real_batches sample_packing", "there are no bins to join", "write `batch_flattening: true`, or remove it")


def one_order(options: RecipeOptions) -> Iterator[Broken]:
    """A curriculum keeps rows where they are."""
    if options.group_by_length and options.curriculum_sampling:
        yield broken("group_by_length curriculum_sampling", "a curriculum keeps the order of the rows", "remove one of them")


def skips_lengthen(options: RecipeOptions) -> Iterator[Broken]:
    """Skipped positions reach beyond the row."""
    if options.use_pose and options.pose_max_context_len is not None and options.pose_max_context_len < options.sequence_len:
        wrong = f"less than sequence_len {options.sequence_len}, so nothing can be skipped"
        yield broken("pose_max_context_len sequence_len", wrong, f"write more than {options.sequence_len}")
    if options.use_pose and options.pose_max_context_len is None:
        yield broken("use_pose pose_max_context_len", "pose_max_context_len is not set", "set it to the context length to train for")


def skips_are_masked(options: RecipeOptions) -> Iterator[Broken]:
    """Where positions skip, only a mask tells one row from the next, and these kernels take none."""
    kernel = options.attn_implementation
    if options.use_pose and kernel not in (None, "varlen", "sdpa", "eager"):
        wrong = f"{kernel} takes skipped positions for the borders of rows"
        yield broken("use_pose attn_implementation", wrong, "write `attn_implementation: sdpa`, or leave it out")


def short_rows_remain(options: RecipeOptions) -> Iterator[Broken]:
    """Rows between both limits are what is trained."""
    if options.min_sample_len > options.sequence_len:
        wrong = f"more than sequence_len {options.sequence_len}, so every row is dropped"
        yield broken("min_sample_len sequence_len", wrong, f"write at most {options.sequence_len}")


PACKING = (
    pairs_are_not_packed,
    judged_rows_are_not_packed,
    flattening_is_no_packing,
    joined_rows_have_one_length,
    real_batches_are_of_bins,
    one_order,
    skips_lengthen,
    skips_are_masked,
    short_rows_remain,
)

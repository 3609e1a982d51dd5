"""Rules about datasets, tokenizer and chat template."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.options.dataset_types import kind_of, type_problem
from pipeline.options.datasets import DatasetEntry
from pipeline.options.rules.broken import Broken, broken, listed
from pipeline.options.views import RecipeOptions


def types_are_known(options: RecipeOptions) -> Iterator[Broken]:
    """A dataset type is one that fits what is trained, or a dotted name of the user's own."""
    kind = kind_of(options.rl, options.reward_model, options.process_reward_model)
    for name in ("datasets", "test_datasets", "dedupe.against"):
        for index, entry in enumerate(listed(options, name)):
            problem = None if kind is None else type_problem(entry.type, kind)
            if problem is not None:
                yield broken(f"{name}.{index}.type", *problem)


def datasets_are_distinct(options: RecipeOptions) -> Iterator[Broken]:
    """An entry given twice trains its rows twice by accident."""
    for name in ("datasets", "test_datasets", "dedupe.against"):
        entries = listed(options, name)
        for index, entry in enumerate(entries):
            if entry in entries[:index]:
                yield broken(f"{name}.{index}", f"the same entry as {name}.{entries.index(entry)}", "remove it")


def shards_have_an_index(options: RecipeOptions) -> Iterator[Broken]:
    """An index counts from 0 and needs something to count in."""
    for name in ("datasets", "test_datasets", "dedupe.against"):
        for index, entry in enumerate(listed(options, name)):
            if entry.shards_idx is not None and entry.shards_idx >= (entry.shards or 1):
                yield broken(
                    f"{name}.{index}.shards_idx",
                    f"there are {entry.shards or 1} shards",
                    f"write 0 to {(entry.shards or 1) - 1}, or set shards",
                )
    if options.dataset_shard_idx is not None and options.dataset_shard_idx >= (options.dataset_shard_num or 1):
        yield broken(
            "dataset_shard_idx", f"there are {options.dataset_shard_num or 1} shards", "write a smaller number, or set dataset_shard_num"
        )


def one_evaluation_set(options: RecipeOptions) -> Iterator[Broken]:
    """A split and sets of their own exclude each other."""
    if options.val_set_size and options.test_datasets:
        yield broken(
            "val_set_size test_datasets", "test_datasets is set too, and only one can say what to evaluate on", "remove one of them"
        )


def splits_are_whole(options: RecipeOptions) -> Iterator[Broken]:
    """Above 1 it is a number of rows."""
    if options.val_set_size > 1 and options.val_set_size % 1:
        yield broken("val_set_size", "a count of rows is a whole number", f"write {int(options.val_set_size)}, or a share below 1")


def jinja_needs_text(options: RecipeOptions) -> Iterator[Broken]:
    """``chat_template: jinja`` names the text that another key holds."""
    works = "add `chat_template_jinja: |` with the template, or name a built-in one such as chatml"
    if options.chat_template == "jinja" and options.chat_template_jinja is None:
        yield broken("chat_template chat_template_jinja", "chat_template_jinja is not set", works)
    for place, entry in _entries(options):
        if entry.chat_template == "jinja" and entry.chat_template_jinja is None:
            yield broken(f"{place}.chat_template", "chat_template_jinja of this entry is not set", works)


def jinja_text_is_used(options: RecipeOptions) -> Iterator[Broken]:
    """Jinja text beside another template's name would be ignored."""
    if options.chat_template_jinja is not None and options.chat_template not in (None, "jinja"):
        wrong = "chat_template_jinja is set too and would not be used"
        yield broken("chat_template chat_template_jinja", wrong, "write `chat_template: jinja`, or remove chat_template_jinja")
    for place, entry in _entries(options):
        if entry.chat_template_jinja is not None and entry.chat_template not in (None, "jinja"):
            wrong = "chat_template_jinja of this entry is set too and would not be used"
            yield broken(f"{place}.chat_template", wrong, "write `chat_template: jinja`, or remove chat_template_jinja")


def _entries(options: RecipeOptions) -> Iterator[tuple[str, DatasetEntry]]:
    """Place and entry, of all lists."""
    for name in ("datasets", "test_datasets", "dedupe.against"):
        for index, entry in enumerate(listed(options, name)):
            yield f"{name}.{index}", entry


def streaming_knows_its_end(options: RecipeOptions) -> Iterator[Broken]:
    """A stream has no length."""
    if _streams(options) and options.max_steps is None:
        yield broken(
            "pretraining_dataset streaming max_steps", "max_steps is not set, and a stream has no length", "set max_steps, for example 1000"
        )


def streaming_has_no_split(options: RecipeOptions) -> Iterator[Broken]:
    """A share or a number of rows cannot be drawn from a stream."""
    if _streams(options) and options.val_set_size:
        yield broken("val_set_size streaming", "rows cannot be drawn from a stream", "remove it and list test_datasets")


def streaming_has_no_duplicates(options: RecipeOptions) -> Iterator[Broken]:
    """Duplicates are found by looking at all rows."""
    if options.dataset_exact_deduplication and (_streams(options) or options.skip_prepare_dataset):
        yield broken("dataset_exact_deduplication streaming", "duplicates are found by looking at all rows", "remove it, or do not stream")


def streaming_packs_one_dataset(options: RecipeOptions) -> Iterator[Broken]:
    """A buffer is filled from one stream."""
    if options.streaming and options.sample_packing and len(options.datasets) > 1:
        yield broken("streaming sample_packing", "packing a stream works with one dataset", "keep one dataset, or do not stream")


def pretraining_has_no_run_average(options: RecipeOptions) -> Iterator[Broken]:
    """The average would need the number of tokens in advance."""
    if options.pretraining_dataset and options.include_tokens_per_second:
        yield broken(
            "include_tokens_per_second pretraining_dataset", "the token count of a stream is not known", "write `include_tkps: true`"
        )


def uploads_log_in(options: RecipeOptions) -> Iterator[Broken]:
    """Uploading needs the stored token."""
    if options.push_dataset_to_hub and not options.hf_use_auth_token:
        yield broken("push_dataset_to_hub hf_use_auth_token", "uploading needs to log in", "add `hf_use_auth_token: true`")


def _streams(options: RecipeOptions) -> bool:
    return bool(options.streaming or options.pretraining_dataset)


DATA = (
    types_are_known,
    datasets_are_distinct,
    shards_have_an_index,
    one_evaluation_set,
    splits_are_whole,
    jinja_needs_text,
    jinja_text_is_used,
    streaming_knows_its_end,
    streaming_has_no_split,
    streaming_has_no_duplicates,
    streaming_packs_one_dataset,
    pretraining_has_no_run_average,
    uploads_log_in,
)

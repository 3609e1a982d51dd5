"""For every option which stages run again when it changes: as stated here, as the catalogue says, and as views really differ."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.options.catalogue import catalogue
from pipeline.options.reading.source import parse
from pipeline.options.reading.wording import models_in
from pipeline.options.recipe import Recipe, check_source
from pipeline.options.row_format import RowFormat
from pipeline.options.views import VIEWS, RecipeOptions
from tests.options.configs import GOOD
from tests.options.values import effective_value

RERUNS = {
    "fetch": (
        *("base_model", "revision_of_model", "tokenizer_config", "chat_template", "chat_template_jinja", "default_system_message"),
        *("tokens", "added_tokens_overrides", "special_tokens.additional_special_tokens", "tokenizer_save_jinja_files"),
        *("special_tokens.bos_token", "special_tokens.eos_token", "special_tokens.pad_token", "special_tokens.unk_token"),
        *("datasets.path", "datasets.ds_type", "datasets.data_files", "datasets.revision", "datasets.name", "datasets.split"),
        *("datasets.shards", "datasets.shards_idx", "datasets.weight", "streaming"),
        *(f"pretraining_dataset.{name}" for name in ("path", "name", "split", "data_files", "skip")),
    ),
    "tokenize": (
        *("datasets.type", "datasets.field", "datasets.field_messages", "datasets.message_property_mappings", "datasets.roles"),
        *("datasets.roles_to_train", "datasets.train_on_eos", "datasets.train_on_eot", "train_on_inputs", "eot_tokens"),
        *("datasets.chat_template", "datasets.chat_template_jinja", "chat_template_kwargs", "datasets.drop_system_message"),
        *("datasets.message_field_training", "datasets.message_field_training_detail", "datasets.field_tools"),
        *("datasets.field_thinking", "datasets.template_thinking_key", "datasets.split_thinking"),
        *("datasets.conversation", "datasets.input_transform", "datasets.field_chosen", "datasets.field_rejected"),
        *("datasets.step_separator", "datasets.max_completion_length", "datasets.train_on_last_step_only"),
        *(f"datasets.type.{name}" for name in RowFormat.model_fields),
        *("rl", "reward_model", "process_reward_model", "tokenize.strict", "pretraining_dataset.text_column"),
    ),
    "dedupe": ("dataset_exact_deduplication",),
    "pack": (
        *("eval_sequence_len", "shuffle_before_merging_datasets", "dataset_shard_num", "dataset_shard_idx"),
        *("sequence_len", "min_sample_len", "excess_length_strategy", "val_set_size", "shuffle_merged_datasets", "sample_packing"),
        *("pack.minimum_efficiency", "sample_packing_sequentially", "eval_sample_packing"),
    ),
    "pack train": ("curriculum_sampling",),
    "pack train eval": ("seed",),
    "train": (
        *("micro_batch_size", "gradient_accumulation_steps", "num_epochs", "max_steps", "logging_steps", "save_steps", "save_total_limit"),
        *("optimizer", "learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm"),
        *("lr_scheduler", "warmup_steps", "warmup_ratio", "bf16", "fp16", "gradient_checkpointing", "attn_implementation"),
        *("pad_to_sequence_len", "pad_to_multiple_of"),
        *("resize_token_embeddings_to_32x", "mean_resizing_embeddings", "shrink_embeddings"),
        *(
            "adapter",
            "lora_r",
            "lora_alpha",
            "lora_dropout",
            "lora_target_modules",
            "lora_target_linear",
            "peft_use_dora",
            "peft_use_rslora",
        ),
    ),
    "merge": ("merge.max_shard_size_mb",),
    "quantize": ("quantize.formats",),
    "eval": ("eval.batch_size", "eval.choices", "eval.samples", "eval.max_new_tokens"),
}

STATED = {place: tuple(stages.split()) for stages, places in RERUNS.items() for place in places}


def leaves() -> list[str]:
    """Options that work and are no groups of others. Entries of test_datasets are those of datasets."""
    found = [option for option in catalogue().values() if option.facts.is_read and not option.facts.execution]
    return [option.place for option in found if option.place == "datasets.type" or not models_in(option.field.annotation)]


def recipe_of(text: str) -> Recipe:
    """The recipe of a text. Rules are no matter here."""
    source = parse(text, "params.yaml")
    return Recipe(RecipeOptions.model_validate(source.value), source)


def base(place: str) -> str:
    """The text that has room for ``place``."""
    if place.startswith("pretraining_dataset."):
        return GOOD + "max_steps: 5\npretraining_dataset:\n  - path: documents.jsonl\n"
    return GOOD.replace("type: chat_template", "type: {}") if place.startswith("datasets.type.") else GOOD


def changed(place: str) -> Recipe:
    """The recipe with another value at ``place``."""
    source = parse(base(place), "params.yaml")
    holder: Any = source.value
    path = place.split(".")
    for part in path[:-1]:
        holder = holder.setdefault(part, {})
        holder = holder[0] if isinstance(holder, list) else holder
    holder[path[-1]] = effective_value(catalogue()[place])
    return Recipe(RecipeOptions.model_validate(source.value), source)


def canonicals(recipe: Recipe) -> dict[str, Any]:
    return {stage: recipe.view(view).canonical() for stage, view in VIEWS.items()}


def test_the_statement_is_complete() -> None:
    assert sorted(STATED) == sorted(leaves())


@pytest.mark.parametrize(("place", "stages"), STATED.items())
def test_a_change_reruns_the_stages_stated(place: str, stages: tuple[str, ...]) -> None:
    before, after = canonicals(recipe_of(base(place))), canonicals(changed(place))
    assert tuple(stage for stage in VIEWS if before[stage] != after[stage]) == stages == catalogue()[place].reruns


def test_what_does_not_work_reruns_nothing() -> None:
    assert not [option.place for option in catalogue().values() if option.reruns and not option.facts.is_read]


def test_what_only_says_how_reruns_nothing() -> None:
    assert not [option.place for option in catalogue().values() if option.reruns and option.facts.execution]


def test_options_left_open_and_defaults_stated_are_one_identity() -> None:
    template = "chat_template_jinja: x\n"
    assert canonicals(check_source(parse(GOOD + template, "a"))) == canonicals(
        check_source(parse(GOOD + template + "chat_template: jinja\n", "b"))
    )
    assert canonicals(check_source(parse(GOOD + "num_epochs: 1\n", "a"))) == canonicals(check_source(parse(GOOD, "b")))

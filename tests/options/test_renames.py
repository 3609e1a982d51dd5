"""Old names are replaced, with a warning that names the new one."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.options.catalogue import catalogue
from pipeline.options.reading.problems import MISSING
from pipeline.options.reading.renames import SIMPLE, apply_renames
from pipeline.options.reading.source import parse
from pipeline.options.reading.validation import value_at
from pipeline.options.views import RecipeOptions, TokenizeOptions
from tests.options.configs import GOOD, accepted, refused


@pytest.mark.parametrize(
    ("text", "new", "value"),
    [
        *((f"{old}: 3\n", new, 3) for old, new in SIMPLE.items() if "." not in old),
        ("trl: {use_liger_loss: true}\n", "trl.use_liger_kernel", True),
        ("sdp_attention: true\n", "attn_implementation", "sdpa"),
        ("eager_attention: true\n", "attn_implementation", "eager"),
        ("flash_attention: true\n", "attn_implementation", "flash_attention_2"),
        ("flex_attention: true\n", "attn_implementation", "flex_attention"),
        ("xformers_attention: true\n", "attn_implementation", "xformers"),
        ("flash_attention: false\n", "attn_implementation", MISSING),
        ("gc_steps: 5\n", "gc_collect_steps", 5),
        ("gc_steps: 5\n", "torch_empty_cache_steps", 5),
        ("rpo_alpha: 0.5\n", "dpo_loss_type", ["sigmoid", "sft"]),
        ("rpo_alpha: 0.5\n", "dpo_loss_weights", [1.0, 0.5]),
        ("dpo_norm_loss: true\n", "dpo_loss_type", "sigmoid_norm"),
        ("fsdp_config: {activation_checkpointing: true}\n", "gradient_checkpointing", True),
        ("fsdp_config: {fsdp_activation_checkpointing: true}\n", "gradient_checkpointing", True),
        ("fsdp_config: {fsdp_offload_params: true}\n", "fsdp_config.offload_params", True),
        ("fsdp_config: {fsdp_version: 2}\n", "fsdp_version", 2),
    ],
)
def test_values_move(text: str, new: str, value: Any) -> None:
    source = parse(text, "params.yaml")
    renaming = apply_renames(source)
    assert value_at(source.value, tuple(new.split("."))) == value
    assert value_at(source.value, (text.split(":")[0],)) is MISSING or text.startswith(("trl", "fsdp_config"))
    assert not renaming.problems
    assert bool(renaming.warnings) == (value is not MISSING)


def test_every_renamed_option_is_replaced() -> None:
    renamed = {option.name for option in catalogue().values() if option.facts.status == "renamed"}
    told = {old.rpartition(".")[2] for old in SIMPLE} | {
        "gc_steps",
        "rpo_alpha",
        "dpo_norm_loss",
        "message_field_role",
        "message_field_content",
    }
    assert renamed - told == {"sdp_attention", "eager_attention", "flash_attention", "flex_attention", "xformers_attention"}


def test_new_names_are_options() -> None:
    assert all(new.split(".")[0] in RecipeOptions.model_fields for new in SIMPLE.values())


def test_message_fields_become_a_mapping() -> None:
    recipe = accepted(GOOD + "").view(TokenizeOptions)
    assert recipe.datasets[0].message_property_mappings is None
    old = "    message_field_role: from\n    message_field_content: value\n"
    new = accepted(GOOD.replace("    type:", old + "    type:"))
    assert new.view(TokenizeOptions).datasets[0].message_property_mappings == {"role": "from", "content": "value"}
    assert [warning.split(" — ")[0] for warning in new.warnings] == [
        'params.yaml:4: datasets.0.message_field_role: "from"',
        'params.yaml:5: datasets.0.message_field_content: "value"',
    ]


def test_old_and_new_name_must_agree() -> None:
    same = accepted(GOOD + "sdp_attention: true\nattn_implementation: sdpa\n")
    assert same.options.attn_implementation == "sdpa"
    found = refused(GOOD + "eager_attention: true\nattn_implementation: sdpa\n")
    assert [(line, key) for line, key, _ in found] == [(6, "eager_attention")]
    two = refused(GOOD + "eager_attention: true\nsdp_attention: true\n")
    assert [(line, key) for line, key, _ in two] == [(6, "eager_attention")]


def test_what_an_old_name_stands_for_is_checked_too() -> None:
    ((line, key, rest),) = refused(GOOD + "xformers_attention: true\n")
    assert (line, key) == (6, "xformers_attention (now attn_implementation)") and "not yet supported" in rest
    ((line, key, rest),) = refused(GOOD + "flash_attention: maybe\n")
    assert (line, key) == (6, "flash_attention") and "expected true or false" in rest

"""Three hundred damaged configs: never anything but a RegrowError, and always the key and its line."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from pipeline.errors import RegrowError
from pipeline.options.reading.source import Place, parse
from pipeline.options.reading.validation import field_at
from pipeline.options.recipe import check_source
from pipeline.options.views import RecipeOptions
from tests.options.configs import PROBLEM

WHOLE: dict[str, Any] = {
    "base_model": "./base",
    "revision_of_model": "main",
    "trust_remote_code": False,
    "tokenizer_config": "./tokenizer",
    "special_tokens": {"pad_token": "<pad>", "eos_token": "<end>"},
    "chat_template": "chatml",
    "datasets": [
        {"path": "a.jsonl", "type": "chat_template", "roles_to_train": ["assistant"], "roles": {"user": ["human"]}, "train_on_eos": "all"},
        {"path": "b.jsonl", "type": "completion", "field": "text", "ds_type": "json"},
    ],
    "test_datasets": [{"path": "c.jsonl", "type": "chat_template", "field_messages": "turns"}],
    "train_on_inputs": False,
    "dataset_exact_deduplication": True,
    "sequence_len": 1024,
    "min_sample_len": 4,
    "excess_length_strategy": "truncate",
    "shuffle_merged_datasets": True,
    "sample_packing": True,
    "pack": {"minimum_efficiency": 0.5},
    "seed": 7,
    "micro_batch_size": 2,
    "gradient_accumulation_steps": 4,
    "num_epochs": 3,
    "logging_steps": 5,
    "save_steps": 50,
    "save_total_limit": 2,
    "optimizer": "adamw_torch",
    "learning_rate": 2e-4,
    "weight_decay": 0.01,
    "adam_beta1": 0.9,
    "adam_beta2": 0.95,
    "max_grad_norm": 1.0,
    "lr_scheduler": "cosine",
    "warmup_ratio": 0.1,
    "bf16": "auto",
    "fp16": False,
    "gradient_checkpointing": True,
    "attn_implementation": "sdpa",
    "adapter": "lora",
    "lora_r": 16,
    "lora_alpha": 32,
    "lora_dropout": 0.05,
    "lora_target_modules": ["q_proj", "v_proj"],
    "peft_use_rslora": True,
    "merge": {"max_shard_size_mb": 500},
    "quantize": ["int8", {"format": "gguf", "type": "q4_0"}],
    "eval": {"batch_size": 4, "choices": ["yes", "no"], "samples": 2, "max_new_tokens": 16},
}

# What each number must not be; true and texts are wrong for all of them.
OUT_OF_RANGE: dict[str, Any] = {
    "sequence_len": 1,
    "min_sample_len": 0,
    "seed": -1,
    "micro_batch_size": 0,
    "gradient_accumulation_steps": -3,
    "num_epochs": 0,
    "learning_rate": -1e-4,
    "weight_decay": -0.1,
    "adam_beta1": 1.0,
    "warmup_ratio": 1.5,
    "lora_r": 0,
    "lora_dropout": 1.0,
    "save_steps": 2.5,
    "max_grad_norm": float("inf"),
    "pack.minimum_efficiency": 1.1,
    "merge.max_shard_size_mb": 0,
    "eval.samples": -1,
    "eval.choices": ["one"],
    "datasets": [],
}

COMBINATIONS: dict[str, dict[str, Any]] = {
    "warmup_ratio": {"warmup_steps": 10},
    "val_set_size": {"val_set_size": 0.1},
    "fp16": {"bf16": True, "fp16": True},
    "chat_template": {"chat_template_jinja": "{{ messages }}"},
    "min_sample_len": {"min_sample_len": 2000},
    "lora_target_linear": {"lora_target_modules": "q.*", "lora_target_linear": True},
    "datasets.1": {"datasets": [WHOLE["datasets"][0], WHOLE["datasets"][0]]},
    "ddp": {"ddp": False, "train": {"num_processes": 2}},
    "flash_attention": {"flash_attention": True},
    "unsloth_rope": {"unsloth_rope": True},
}


def places(values: Any, path: Place = ()) -> Iterator[Place]:
    """Every key of an option in a config."""
    for key, value in values.items() if isinstance(values, dict) else enumerate(values):
        here = (*path, key)
        if isinstance(key, str) and path[-1:] != ("roles",):
            yield here
        if isinstance(value, dict | list):
            yield from places(value, here)


PLACES = list(places(WHOLE))


def render(values: Any) -> str:
    stream = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.dump(values, stream)
    return stream.getvalue()


def holder(values: Any, path: Place) -> Any:
    for part in path[:-1]:
        values = values[part]
    return values


@st.composite
def typos(draw: st.DrawFn) -> tuple[Any, Place]:
    """A key with a letter too many, too few or another one."""
    config, path = copy.deepcopy(WHOLE), draw(st.sampled_from(PLACES))
    key, position = str(path[-1]), draw(st.integers(0, len(str(path[-1])) - 1))
    letter = draw(st.sampled_from("abcxyz_0-"))
    wrong = draw(
        st.sampled_from(
            [key[:position] + key[position + 1 :], key[:position] + letter + key[position:], key[:position] + letter + key[position + 1 :]]
        )
    )
    inside = holder(config, path)
    if field_at(RecipeOptions, (*path[:-1], wrong)) is not field_at(RecipeOptions, path[:-1]) or wrong in inside or not wrong:
        wrong = key + "_x"
    inside[wrong] = inside.pop(key)
    return config, (*path[:-1], wrong)


@st.composite
def wrong_types(draw: st.DrawFn) -> tuple[Any, Place]:
    """A value that no option takes at this place."""
    config, path = copy.deepcopy(WHOLE), draw(st.sampled_from(PLACES))
    holder(config, path)[path[-1]] = draw(st.sampled_from([{"a": {"b": 1}}, [[1]], [{"a": 1}], {"x": [None]}]))
    return config, path


@st.composite
def out_of_range(draw: st.DrawFn) -> tuple[Any, Place]:
    config, key = copy.deepcopy(WHOLE), draw(st.sampled_from(sorted(OUT_OF_RANGE)))
    path = tuple(key.split("."))
    wrong = [OUT_OF_RANGE[key]] + ([] if key in ("datasets", "eval.choices") else [True, "many", ""])
    holder(config, path)[path[-1]] = draw(st.sampled_from(wrong))
    return config, path


@st.composite
def combinations(draw: st.DrawFn) -> tuple[Any, Place]:
    key = draw(st.sampled_from(sorted(COMBINATIONS)))
    return copy.deepcopy(WHOLE) | COMBINATIONS[key], tuple(int(part) if part.isdigit() else part for part in key.split("."))


def test_the_config_itself_is_right() -> None:
    assert check_source(parse(render(WHOLE), "params.yaml")).warnings == ()


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.one_of(typos(), wrong_types(), out_of_range(), combinations()))
def test_a_damaged_config_names_key_and_line(damaged: tuple[Any, Place]) -> None:
    config, path = damaged
    text = render(config)
    with pytest.raises(RegrowError) as caught:
        check_source(parse(text, "params.yaml"))
    assert caught.value.exit_code == 2
    told = [PROBLEM.fullmatch(line) for line in str(caught.value).splitlines()]
    assert all(told), str(caught.value)
    line = parse(text, "params.yaml").line(path)
    key = ".".join(map(str, path))
    assert any(match["key"].split(" (now")[0].startswith(key) and int(match["line"]) >= line for match in told if match), (
        key,
        line,
        str(caught.value),
    )
    assert any(int(match["line"]) == line or match["key"].startswith(key + ".") for match in told if match), (line, str(caught.value))


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_damaged_text_gives_no_other_error(data: st.DataObject) -> None:
    text = render(WHOLE)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 30)))
        text = text[:start] + data.draw(st.text("abc:-?[]{}&*!|>'\"%@`#,\t\n 01.~\x00é", max_size=6)) + text[end:]
    try:
        check_source(parse(text, "params.yaml"))
    except RegrowError as error:
        assert "params.yaml" in str(error)

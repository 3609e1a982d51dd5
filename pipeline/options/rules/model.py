"""Rules about how the base model is made: what its config may be given, what loading may be told, how few bits are held."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.options.rules.broken import Broken, broken
from pipeline.options.views import RecipeOptions

_PRECISION = "set bf16, bfloat16, float16 or float32"
_OF_CONFIG = {
    "dtype": _PRECISION,
    "torch_dtype": _PRECISION,
    "attn_implementation": "set attn_implementation",
    "_attn_implementation": "set attn_implementation",
    "quantization_config": "set load_in_4bit or load_in_8bit",
    "model_type": "set cls_model_config",
    "auto_map": "remove it; regrow runs no code that comes with a model",
    "rope_parameters": "set rope_scaling and rope_theta there",
}
"""Attributes of a config that other options decide."""

_OF_LOADING = {
    **{key: _OF_CONFIG[key] for key in ("dtype", "torch_dtype", "attn_implementation", "quantization_config")},
    **dict.fromkeys(("load_in_4bit", "load_in_8bit", "device_map", "max_memory"), "set the option of that name"),
    "config": "set base_model_config or overrides_of_model_config",
    "revision": "set revision_of_model",
    "trust_remote_code": "remove it; regrow runs no code that comes with a model",
    "use_kernels": "remove it",
}
"""Keywords of from_pretrained that other options decide."""

_PASSED_ON = {"experts_implementation": ("eager", "batched_mm", "grouped_mm")}
"""Keywords of from_pretrained that no option has, with their values."""


def configs_take_attributes_of_their_own(options: RecipeOptions) -> Iterator[Broken]:
    """What another option decides is set there."""
    for key in options.overrides_of_model_config or {}:
        if key in _OF_CONFIG:
            yield broken(f"overrides_of_model_config.{key}", "another option decides it", _OF_CONFIG[key])


def loading_takes_what_no_option_has(options: RecipeOptions) -> Iterator[Broken]:
    """from_pretrained takes any keyword, and uses it as an attribute of the config where it is one; later stages would not see that."""
    for key, value in (options.overrides_of_model_kwargs or {}).items():
        place = f"overrides_of_model_kwargs.{key}"
        if key in _OF_LOADING:
            yield broken(place, "another option decides it", _OF_LOADING[key])
        elif key not in _PASSED_ON:
            yield broken(
                place, f"what can be passed on: {', '.join(_PASSED_ON)}", "set attributes of the config in overrides_of_model_config"
            )
        elif value not in _PASSED_ON[key]:
            yield broken(place, "it has no such value", f"write one of {', '.join(_PASSED_ON[key])}")


def bits_are_counted_once(options: RecipeOptions) -> Iterator[Broken]:
    """How many bits weights have, load_in_4bit and load_in_8bit say."""
    for key in options.bnb_config_kwargs or {}:
        if key in ("load_in_4bit", "load_in_8bit"):
            yield broken(f"bnb_config_kwargs.{key}", "another option decides it", f"set {key} itself")


MODEL = (configs_take_attributes_of_their_own, loading_takes_what_no_option_has, bits_are_counted_once)

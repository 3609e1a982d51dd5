"""The adapter that ``lora_model_dir`` names: which bytes it is, and whether the other options agree with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.digest import digest_file
from pipeline.errors import RegrowError
from pipeline.json_object import read_object
from pipeline.options.recipe import Recipe
from pipeline.options.views import RecipeOptions
from pipeline.project import Project

FILES = ("adapter_config.json", "adapter_model.safetensors")

_SAME = {
    "lora_r": "r",
    "lora_alpha": "lora_alpha",
    "lora_dropout": "lora_dropout",
    "lora_target_modules": "target_modules",
    "lora_target_parameters": "target_parameters",
    "lora_exclude_modules": "exclude_modules",
    "lora_modules_to_save": "modules_to_save",
    "lora_fan_in_fan_out": "fan_in_fan_out",
    "lora_rank_pattern": "rank_pattern",
    "lora_alpha_pattern": "alpha_pattern",
    "peft_use_dora": "use_dora",
    "peft_use_rslora": "use_rslora",
    "peft_layers_to_transform": "layers_to_transform",
    "peft_layers_pattern": "layers_pattern",
    "peft_layer_replication": "layer_replication",
    "peft_init_lora_weights": "init_lora_weights",
    "peft_trainable_token_indices": "trainable_token_indices",
    "peft_ensure_weight_tying": "ensure_weight_tying",
}
"""Options that a file may repeat beside ``lora_model_dir``, by what PEFT calls them."""

_KEEPS_BASE = (True, False, "gaussian", "eva", "orthogonal")


def adapter_identity(project: Project, recipe: Recipe) -> dict[str, str]:
    """SHA-256 (hex) of the files of ``lora_model_dir``: an edited adapter trains again, a moved one does not.

    Raises:
        RegrowError: no adapter there, one that regrow writes itself or cannot go on from, or an option that contradicts it.
    """
    value = str(recipe.options.lora_model_dir)
    folder = project.root / Path(value).expanduser()
    if folder.resolve().is_relative_to(project.data.resolve() / "trained"):
        raise RegrowError(
            f"params.yaml: lora_model_dir: {value!r} is what this run writes.", "Copy it to a folder of your own and name that."
        )
    for name in FILES:
        if not (folder / name).is_file():
            raise RegrowError(
                f"params.yaml: lora_model_dir: {value!r} has no {name} (looked in {folder}).",
                "Name a folder with an adapter as PEFT saves it. One on the hub: download it first.",
            )
    _check_config(folder / FILES[0], recipe.options)
    return {name: digest_file(folder / name) for name in FILES}


def _check_config(path: Path, options: RecipeOptions) -> None:
    config = read_object(path, f"params.yaml: lora_model_dir: {path}")
    kind, beginning = config.get("peft_type"), config.get("init_lora_weights", True)
    if kind != "LORA" or beginning not in _KEEPS_BASE:
        found = f"peft_type {kind}" if kind != "LORA" else f"init_lora_weights {beginning}, which changed the base model too"
        raise RegrowError(f"params.yaml: lora_model_dir: {path} says {found}.", "Go on from a plain LoRA adapter.")
    for option, name in _SAME.items():
        given = getattr(options, option)
        if option in options.model_fields_set and given != "all-linear" and _plain(given) != _plain(config.get(name)):
            raise RegrowError(
                f"params.yaml: {option}: {given!r} contradicts the adapter of lora_model_dir, whose {name} is {config.get(name)!r}.",
                f"Remove {option}: the adapter's own configuration decides.",
            )


def _plain(value: Any) -> Any:
    """What means nothing is nothing, and the order of names is no difference."""
    if value in (None, False, [], {}, 0.0):
        return None
    if isinstance(value, list | tuple):
        return sorted(map(str, value)) if all(isinstance(item, str) for item in value) else [_plain(item) for item in value]
    return value

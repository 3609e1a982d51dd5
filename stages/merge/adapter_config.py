"""Reads adapter_config.json and refuses what plain matrix arithmetic cannot merge exactly."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pipeline.errors import RegrowError
from pipeline.json_object import read_object

FILE = "adapter_config.json"
Number = TypeVar("Number", int, float)

_USED = frozenset(
    {
        "r",
        "lora_alpha",
        "use_rslora",
        "use_dora",
        "fan_in_fan_out",
        "rank_pattern",
        "alpha_pattern",
        "peft_type",
        "init_lora_weights",
        "bias",
        "modules_to_save",
        "target_parameters",
        "trainable_token_indices",
        "layer_replication",
    }
)
# These decided what was trained and how; the tensors of the adapter already say the result.
_SPENT = frozenset(
    {
        "auto_mapping",
        "base_model_name_or_path",
        "corda_config",
        "ensure_weight_tying",
        "eva_config",
        "exclude_modules",
        "inference_mode",
        "layers_pattern",
        "layers_to_transform",
        "loftq_config",
        "lora_dropout",
        "lora_ga_config",
        "megatron_core",
        "peft_version",
        "qalora_group_size",
        "revision",
        "target_modules",
        "task_type",
    }
)
# PiSSA, OLoRA, CorDA, LoftQ and LoRA-GA change the base weights too, and the file does not hold that change.
_KEEPS_BASE = (True, False, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True)
class LoraConfig:
    """What merging needs of a LoRA configuration (peft's field names)."""

    r: int
    lora_alpha: float
    use_rslora: bool
    use_dora: bool
    fan_in_fan_out: bool
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    target_parameters: tuple[str, ...] = ()
    token_indices: Mapping[str, Sequence[int]] | Sequence[int] = ()
    layer_replication: Sequence[tuple[int, int]] = ()

    def tokens(self, module: str) -> Sequence[int]:
        """Rows of a module that were trained as single tokens, in the order in which they are stored."""
        if not isinstance(self.token_indices, Mapping):
            return self.token_indices
        return next((rows for name, rows in self.token_indices.items() if f".{module}".endswith(f".{name}")), ())

    def rank(self, module: str) -> int:
        """The rank of a module, by its full name in the model."""
        return _lookup(self.rank_pattern, module, self.r)

    def scale(self, module: str) -> float:
        """What the product ``B @ A`` of a module is multiplied by."""
        alpha, rank = _lookup(self.alpha_pattern, module, self.lora_alpha), self.rank(module)
        return alpha / math.sqrt(rank) if self.use_rslora else alpha / rank


def read_config(folder: Path) -> LoraConfig:
    """The adapter's configuration.

    Raises:
        RegrowError: no readable file, or a setting that cannot be merged exactly, by its name and value.
    """
    path = folder / FILE
    settings = read_object(path, str(path))
    _refuse_wrong_types(path, settings)
    _refuse_inexact(path, settings)
    return LoraConfig(
        r=settings.get("r", 8),
        lora_alpha=settings.get("lora_alpha", 8),
        use_rslora=bool(settings.get("use_rslora")),
        use_dora=bool(settings.get("use_dora")),
        fan_in_fan_out=bool(settings.get("fan_in_fan_out")),
        rank_pattern=settings.get("rank_pattern") or {},
        alpha_pattern=settings.get("alpha_pattern") or {},
        target_parameters=tuple(settings.get("target_parameters") or ()),
        token_indices=settings.get("trainable_token_indices") or (),
        layer_replication=settings.get("layer_replication") or (),
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_switch(value: Any) -> bool:
    return isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_rank(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _all(kind: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(kind, value))


def _by_name(kind: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Values by a regular expression for names of modules."""
    return lambda value: isinstance(value, dict) and all(_is_pattern(key) and kind(item) for key, item in value.items())


def _is_pattern(value: str) -> bool:
    try:
        re.compile(value)
    except (re.error, OverflowError, RecursionError):
        return False
    return True


_TEXTS = (_is_text, _all(_is_text))
_TYPES: dict[str, tuple[Callable[[Any], bool], ...]] = {
    "r": (_is_rank,),
    "lora_alpha": (_is_number,),
    "lora_dropout": (_is_number,),
    "rank_pattern": (_by_name(_is_rank),),
    "alpha_pattern": (_by_name(_is_number),),
    **dict.fromkeys(("use_rslora", "use_dora", "fan_in_fan_out", "ensure_weight_tying", "inference_mode"), (_is_switch,)),
    **dict.fromkeys(("target_modules", "exclude_modules", "target_parameters", "modules_to_save", "layers_pattern"), _TEXTS),
    **dict.fromkeys(("peft_type", "task_type", "bias", "base_model_name_or_path", "revision", "peft_version"), (_is_text,)),
    **dict.fromkeys(("corda_config", "eva_config", "loftq_config", "lora_ga_config"), (lambda value: isinstance(value, dict),)),
    "init_lora_weights": (_is_switch, _is_text),
    "layers_to_transform": (_is_count, _all(_is_count)),
    "layer_replication": (_all(lambda pair: _all(_is_count)(pair) and len(pair) == 2),),
    "trainable_token_indices": (_all(_is_count), lambda value: isinstance(value, dict) and all(map(_all(_is_count), value.values()))),
}
"""What a setting may be, where it is not null. PEFT's class checks none of them."""


def _refuse_wrong_types(path: Path, settings: Mapping[str, Any]) -> None:
    for name, kinds in _TYPES.items():
        value = settings.get(name)
        if value is not None and not any(is_kind(value) for is_kind in kinds):
            shown = json.dumps(value)[:200]
            raise RegrowError(f"{path}: {name} is {shown}, which it cannot be.", "Save the adapter with peft's save_pretrained.")


def _refuse_inexact(path: Path, settings: Mapping[str, Any]) -> None:
    unset: tuple[Any, ...] = (None, False, [], {}, "")
    unknown = {name: value for name, value in settings.items() if name not in _USED | _SPENT and value not in unset}
    if settings.get("peft_type") != "LORA":
        unknown["peft_type"] = settings.get("peft_type")
    if settings.get("init_lora_weights", True) not in _KEEPS_BASE:
        unknown["init_lora_weights"] = settings["init_lora_weights"]
    if unknown:
        listed = ", ".join(f"{name}: {json.dumps(unknown[name])[:200]}" for name in sorted(unknown))
        raise RegrowError(
            f"{path} cannot be merged exactly because of {listed}.",
            "merge folds LoRA, rsLoRA and DoRA adapters into the base; train without that setting, or convert the adapter to plain LoRA.",
        )


def _lookup(pattern: Mapping[str, Number], module: str, default: Number) -> Number:
    """peft's rule: the first key that matches the end of the name, as a regular expression of whole components."""
    return next((value for key, value in pattern.items() if re.match(rf"(.*\.)?({key})$", module)), default)

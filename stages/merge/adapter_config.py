"""Reads adapter_config.json and refuses what plain matrix arithmetic cannot merge exactly."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pipeline.errors import RegrowError

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
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise RegrowError(f"{path} cannot be read: {error}.") from None
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


def _refuse_inexact(path: Path, settings: Mapping[str, Any]) -> None:
    unset: tuple[Any, ...] = (None, False, [], {}, "")
    unknown = {name: value for name, value in settings.items() if name not in _USED | _SPENT and value not in unset}
    if settings.get("peft_type") != "LORA":
        unknown["peft_type"] = settings.get("peft_type")
    if settings.get("init_lora_weights", True) not in _KEEPS_BASE:
        unknown["init_lora_weights"] = settings["init_lora_weights"]
    if unknown:
        listed = ", ".join(f"{name}: {json.dumps(unknown[name])}" for name in sorted(unknown))
        raise RegrowError(
            f"{path} cannot be merged exactly because of {listed}.",
            "merge folds LoRA, rsLoRA and DoRA adapters into the base; train without that setting, or convert the adapter to plain LoRA.",
        )


def _lookup(pattern: Mapping[str, Number], module: str, default: Number) -> Number:
    """peft's rule: the first key that matches the end of the name, as a regular expression of whole components."""
    return next((value for key, value in pattern.items() if re.match(rf"(.*\.)?({key})$", module)), default)

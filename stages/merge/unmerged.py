"""The base with its adapter beside it, computed as peft does, without having either in memory whole."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pipeline.errors import RegrowError
from stages.merge.adapter_config import FILE, LoraConfig
from stages.merge.checkpoint import Checkpoint
from stages.merge.on_demand import Laid, claim, claims, lay_out, read_on_demand
from stages.merge.replication import original_name

_REMEDY = "Save configuration and weights together, with peft's save_pretrained."
_WRAPPING = re.compile(r"^base_model\.model\.|\.(base_layer|token_adapter|original_module)(?=\.|$)")


def open_unmerged(base: Path, trained: Path, config: LoraConfig, scratch: Path, vocabulary: int | None, ids: Tensor) -> Any:
    """peft's model of the adapter in ``trained`` on ``base``, which reads the base's weights as it uses them.

    Args:
        scratch, vocabulary: as :func:`stages.merge.on_demand.lay_out`.
        ids: all tokens that it will be given.

    Raises:
        RegrowError: peft does not take the adapter's settings, or they adapt more than it holds.
    """
    from peft import PeftConfig, get_peft_model
    from peft.utils import load_peft_weights, set_peft_model_state_dict

    laid, stored = lay_out(base, scratch, vocabulary), Checkpoint(base)
    try:
        settings: Any = PeftConfig.from_pretrained(str(trained))
        settings.inference_mode, settings.init_lora_weights = True, True  # whatever they began as: the adapter's own follow
        with warnings.catch_warnings(action="ignore"):  # of what may go wrong in training and in peft's own merge
            adapted: Any = get_peft_model(laid.model, settings, low_cpu_mem_usage=True)
    except (TypeError, ValueError, LookupError) as error:  # settings that contradict each other, or do not fit the model
        reason = " ".join(str(error).split())[:300]
        raise RegrowError(f"peft cannot put the adapter of {trained / FILE} on the base: {reason}.", _REMEDY) from None
    claim(adapted)  # peft copies repeated layers without their data
    ties = _ties(adapted)
    tensors = {name: tensor.float() for name, tensor in load_peft_weights(str(trained), device="cpu").items()}
    loaded: Any = set_peft_model_state_dict(adapted, tensors, low_cpu_mem_usage=True)
    if empty := sorted(name for name in loaded.missing_keys if ".lora_" in name):
        raise RegrowError(f"{trained / FILE} asks for {len(empty)} tensors that the adapter lacks ({', '.join(empty[:3])}).", _REMEDY)
    _tie_again(ties)
    wrapped = Laid(adapted, laid.folder, laid.stored)
    read_on_demand(wrapped, stored.rows, ids, lambda path: original_name(_WRAPPING.sub("", path), config.layer_replication))
    return adapted.eval()


Ties = list[list[tuple[nn.Module, str]]]
"""Places that share one parameter."""


def _ties(model: Any) -> Ties:
    places: dict[int, list[tuple[nn.Module, str]]] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            places.setdefault(id(parameter), []).append((module, name))
    return [shared for shared in places.values() if len(shared) > 1]


def _tie_again(ties: Ties) -> None:
    """Loading puts new parameters in the place of those without data; what shared one of these must share the new one."""
    for shared in ties:
        loaded = [module._parameters[name] for module, name in shared if name not in claims(module)]
        for module, name in shared:
            if loaded and name in claims(module):
                module._parameters[name] = loaded[0]

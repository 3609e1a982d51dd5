"""Groups of parameters: each with one learning rate, and with weight decay or without."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import torch
from torch import nn
from transformers.trainer_pt_utils import get_parameter_names
from transformers.trainer_utils import check_target_module_exists

from pipeline.errors import RegrowError
from pipeline.options.optimizer import ParameterGroup
from pipeline.options.views import TrainOptions

_UNDECAYED = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)"]
"""Patterns of names without weight decay, as transformers' Trainer has them."""

Rate = Callable[[str, nn.Parameter], tuple[float, bool]]
"""The peak learning rate of a parameter, and whether weight decay may apply to it."""


def grouped(model: Any, options: TrainOptions, parameters: Mapping[str, nn.Parameter]) -> list[dict[str, Any]]:
    """Groups of ``parameters`` as optimizers take them, the main group first even if it is empty.

    The main group has ``learning_rate`` and weight decay; the second has ``learning_rate`` and none; others follow in the order
    of the model.
    """
    decaying = set(get_parameter_names(model, [nn.LayerNorm], _UNDECAYED))  # type: ignore[no-untyped-call]
    rate = _rates(model, options)
    found: dict[tuple[float, bool], list[nn.Parameter]] = {(options.learning_rate, True): [], (options.learning_rate, False): []}
    for name, parameter in parameters.items():
        peak, decays = rate(name, parameter)
        found.setdefault((peak, decays and name in decaying), []).append(parameter)
    return [
        {"params": members, "lr": peak, "weight_decay": options.weight_decay if decays else 0.0}
        for (peak, decays), members in found.items()
    ]


def trained(model: Any) -> dict[str, nn.Parameter]:
    """Names and parameters that are trained, in the order of the model."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def hidden_matrices(model: Any) -> set[str]:
    """Names of the trained matrices but those of embeddings and output head."""
    outer = _embeddings(model)
    return {name for name, parameter in trained(model).items() if parameter.ndim == 2 and id(parameter) not in outer}


def projected(model: Any, targets: list[str] | str) -> set[str]:
    """Names of the weights of linear layers that ``optim_target_modules`` names.

    Raises:
        RegrowError: one of the targets names none.
    """
    weights = trained(model)
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and f"{name}.weight" in weights]
    found = {target: {name for name in linear if _is_targeted(name, target)} for target in _each(targets)}
    if lost := [target for target, names in found.items() if not names]:
        raise RegrowError(
            f"optim_target_modules: {lost[0]!r} matches no linear layer that is trained.",
            f"Write all_linear, or parts of names such as {', '.join(sorted({name.rpartition('.')[2] for name in linear})) or 'none'}.",
        )
    return {f"{name}.weight" for names in found.values() for name in names}


def _each(targets: list[str] | str) -> list[str]:
    return [targets] if isinstance(targets, str) else targets


def _is_targeted(name: str, target: str) -> bool:
    return target == "all_linear" or check_target_module_exists([target], name) is True


def _embeddings(model: Any) -> set[int]:
    """Identities of the parameters of embeddings and output head, and of what an adapter has put there."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    modules = (base.get_input_embeddings(), base.get_output_embeddings())
    return {id(parameter) for module in modules if module is not None for parameter in module.parameters()}


def _rates(model: Any, options: TrainOptions) -> Rate:
    first = list(_embedding_rules(model, options))
    taken = {name for name, parameter in trained(model).items() if any(rule(name, parameter) is not None for rule in first)}
    rules = [*first, *_named_rules(model, options, taken), *_loraplus_rules(options)]

    def rate(name: str, parameter: nn.Parameter) -> tuple[float, bool]:
        found = (answer for rule in rules if (answer := rule(name, parameter)) is not None)
        return next(found, (options.learning_rate, True))

    return rate


_Rule = Callable[[str, nn.Parameter], tuple[float, bool] | None]


def _embedding_rules(model: Any, options: TrainOptions) -> Iterable[_Rule]:
    """Embeddings with a rate of their own have no weight decay, as in Axolotl."""
    scale = options.embedding_lr_scale
    peak = options.learning_rate * scale if scale is not None else options.embedding_lr
    if peak is None:
        return
    outer = _embeddings(model)
    if not any(id(parameter) in outer for parameter in trained(model).values()):
        key = "embedding_lr" if scale is None else "embedding_lr_scale"
        raise RegrowError(
            f"{key} is set, and neither embeddings nor output head are trained.", f"Remove {key}, or train them (lora_modules_to_save)."
        )
    yield lambda _, parameter: (peak, False) if id(parameter) in outer else None


def _named_rules(model: Any, options: TrainOptions, taken: Collection[str]) -> Iterable[_Rule]:
    """``taken``: names of the parameters that the rate of embeddings has."""
    groups = options.lr_groups or []
    names = list(trained(model))
    left = [name for name in names if name not in taken]
    for group in groups:
        _check_group(group, names, left)
        left = [name for name in left if not _holds(name, group.modules)]

    def rule(name: str, _: torch.Tensor) -> tuple[float, bool] | None:
        return next(((group.lr, True) for group in groups if _holds(name, group.modules)), None)

    yield rule


def _check_group(group: ParameterGroup, names: list[str], left: list[str]) -> None:
    if not any(_holds(name, group.modules) for name in names):
        raise RegrowError(
            f"lr_groups: no trained parameter's name holds {' or '.join(map(repr, group.modules))} (group {group.name!r}).",
            f"Names are such as {', '.join(names[:3])}.",
        )
    if not any(_holds(name, group.modules) for name in left):
        raise RegrowError(
            f"lr_groups: nothing is left for group {group.name!r}: groups before it, or embedding_lr, have all that it names.",
            f"The first with a match takes a parameter: name less before {group.name!r}, or remove it.",
        )


def _holds(name: str, parts: Collection[str]) -> bool:
    return any(part in name for part in parts)


def _loraplus_rules(options: TrainOptions) -> Iterable[_Rule]:
    """As in PEFT: B and all vectors get the larger rate, factors of embeddings one of their own, A the common one."""
    ratio = options.loraplus_lr_ratio
    if ratio is None:
        return

    def rule(name: str, parameter: nn.Parameter) -> tuple[float, bool] | None:
        if "lora_embedding_" in name:
            return options.loraplus_lr_embedding, True
        return (options.learning_rate * ratio, True) if "lora_B" in name or parameter.ndim == 1 else None

    yield rule

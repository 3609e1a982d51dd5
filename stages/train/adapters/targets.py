"""Which parts of a model an adapter is asked to change, and whether the model has them.

PEFT leaves out, without a word, a name among several that matches nothing; here every name must match.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

from pipeline.errors import RegrowError
from pipeline.options.views import TrainOptions

Match = Callable[[str, str], bool]

_ROUTERS = ("Llama4Router", "PhimoeTopKRouter")
"""The classes of transformers 5.23 that are nn.Linear and compute something else."""

_EVERY = "all-linear"
"""What PEFT calls every linear layer but the output head."""


def target_modules(model: Any, options: TrainOptions) -> str | list[str] | None:
    """Names, a regular expression, or None for PEFT's choice for the architecture (an empty list beside single parameters).

    Raises:
        RegrowError: a name that no module has, or a regular expression beside ``lora_target_linear``.
    """
    named = options.lora_target_modules
    if isinstance(named, list):
        _require(model, "lora_target_modules", named, _module_names(model), _ends_with)
    if isinstance(named, str) and named != _EVERY:
        _require_pattern(model, named)
    if not options.lora_target_linear and named != _EVERY:
        return [] if named is None and options.lora_target_parameters else named
    if isinstance(named, str) and named != _EVERY:
        raise RegrowError(
            f"lora_target_linear: true and the regular expression lora_target_modules: {named!r} cannot be combined.",
            "Set lora_target_linear: false, or give lora_target_modules as a list of names.",
        )
    others = named if isinstance(named, list) else []
    # PEFT knows neither every head that judges nor which linear modules route, and counts layers only in names.
    by_name = others or options.peft_layers_to_transform or options.reward_model or options.process_reward_model or router_names(model)
    return sorted({*others, *linear_names(model)}) if by_name else _EVERY


def _require_pattern(model: Any, named: str) -> None:
    try:
        re.compile(named)
    except re.error as error:
        raise RegrowError(
            f"lora_target_modules: {named!r} is no regular expression: {error}.",
            f"Write a list of names, such as some of {', '.join(linear_names(model))}.",
        ) from None


def target_parameters(model: Any, options: TrainOptions) -> list[str] | None:
    """Names of single parameters, from one text or a list.

    Raises:
        RegrowError: a name that no parameter has, or one of a parameter with other than two or three dimensions.
    """
    given = options.lora_target_parameters
    names = [given] if isinstance(given, str) else given
    if not names:
        return None
    parameters = dict(model.named_parameters())
    for name in names:
        found = [parameter for full, parameter in parameters.items() if _ends_with(name, full)]
        if not found:
            raise RegrowError(
                f"lora_target_parameters: this {type(model).__name__} has no parameter {name!r}.",
                f"Parameters of its last layer: {', '.join(list(parameters)[-12:])}.",
            )
        if any(parameter.dim() not in (2, 3) for parameter in found):
            raise RegrowError(
                f"lora_target_parameters: {name!r} is no matrix and no stack of matrices.", "Name weights; vectors are trained whole."
            )
    return names


def check_names(model: Any, options: TrainOptions) -> None:
    """Names that PEFT looks up in the model as it is.

    Raises:
        RegrowError: one matches nothing.
    """
    modules, exclude = _module_names(model), options.lora_exclude_modules
    _require(model, "lora_modules_to_save", options.lora_modules_to_save or [], modules, _ends_with)
    named = [exclude] if isinstance(exclude, str) else exclude or []
    _require(
        model, "lora_exclude_modules", named, modules, lambda end, name: _is_excluded(name, end if isinstance(exclude, str) else [end])
    )
    tokens = options.peft_trainable_token_indices
    _require(model, "peft_trainable_token_indices", tokens if isinstance(tokens, dict) else [], modules, _ends_with)
    rows = model.get_input_embeddings().num_embeddings
    ids = [token for ids in (tokens.values() if isinstance(tokens, dict) else [tokens or []]) for token in ids]
    if absent := sorted(token for token in ids if not 0 <= token < rows):
        raise RegrowError(f"peft_trainable_token_indices: the model has no token {absent[0]}.", f"It has tokens 0 to {rows - 1}.")


def check_ends(model: Any, config: Any, options: TrainOptions) -> None:
    """That embedding and output head are each trained in one way, and in one that PEFT can: it crashes, or merges wrongly, otherwise.

    Args:
        config: PEFT's, which says what LoRA adapts.

    Raises:
        RegrowError: one is to be trained in two ways.
    """
    from peft.tuners.tuners_utils import check_target_module_exists

    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    names = {name: module for name, module in model.named_modules() if module in ends}
    tied = bool(model.config.tie_word_embeddings)
    adapted = [name for name in names if config.target_modules and check_target_module_exists(config, name)]
    if options.peft_use_dora and options.peft_ensure_weight_tying and tied and adapted:
        wrong = f"peft_use_dora: true, but peft_ensure_weight_tying adapts {' and '.join(names)} as one, which PEFT's DoRA cannot."
        raise RegrowError(wrong, "Remove one of the two options, or name the ends in lora_modules_to_save.")
    tokens = options.peft_trainable_token_indices
    if not tokens:
        return
    asked = tokens if isinstance(tokens, dict) else [name for name, module in names.items() if module is ends[0]]
    for name in asked:
        _check_is_end(name, names, [full for full in _module_names(model) if _ends_with(name, full)])
    rows = [full for full in names if tied or any(_ends_with(name, full) for name in asked)]
    saved = [full for full in rows if any(_ends_with(name, full) for name in options.lora_modules_to_save or [])]
    for option, others in (("lora_modules_to_save", saved), ("lora_target_modules", [name for name in rows if name in adapted])):
        if others:
            raise RegrowError(
                f"peft_trainable_token_indices: {option} has {others[0]} trained too{', and both ends share one weight' if tied else ''}.",
                "Remove one of the two: rows of it are trained, or all of it.",
            )


def _check_is_end(asked: str, names: Iterable[str], found: Iterable[str]) -> None:
    if other := next((full for full in found if full not in names), None):
        raise RegrowError(
            f"peft_trainable_token_indices: {asked!r} is {other}, which has no row for each token.",
            f"Those that have are {', '.join(names)}.",
        )


def check_adapted(model: Any, options: TrainOptions) -> None:
    """What only a finished adapter can tell: that every pattern and every layer number chose something.

    Raises:
        RegrowError: one chose nothing.
    """
    adapted = adapted_names(model)
    kinds = {name: type(module).__name__ for name, module in model.named_modules()}
    if routers := [name for name, kind in kinds.items() if kind in _ROUTERS and name.endswith(".base_layer")]:
        raise RegrowError(
            f"lora_target_modules: {routers[0].removesuffix('.base_layer').removeprefix('base_model.model.')} gives out which experts "
            "take a token, and LoRA adapts matrix products.",
            "Name other modules; lora_target_linear: true leaves it out.",
        )
    _check_excluded(model, options.lora_exclude_modules)
    for key, patterns in (("lora_rank_pattern", options.lora_rank_pattern), ("lora_alpha_pattern", options.lora_alpha_pattern)):
        for pattern in patterns or {}:
            if not any(re.match(rf"(.*\.)?({pattern})$", name) for name in adapted):
                parts = sorted({".".join(name.split(".")[-2:]) for name in adapted})
                raise RegrowError(f"{key}: {pattern!r} matches nothing that is adapted.", f"Names of what is end in {', '.join(parts)}.")
    layers = {int(number) for name in adapted for number in re.findall(r"\.(\d+)\.", name)}
    if absent := sorted(set(options.peft_layers_to_transform or []) - layers):
        raise RegrowError(
            f"peft_layers_to_transform: the adapter has nothing in layers {', '.join(map(str, absent))}.",
            f"Layers with modules that are adapted are {', '.join(map(str, sorted(layers))) or 'none'}; they are counted from 0.",
        )


def _check_excluded(model: Any, exclude: list[str] | str | None) -> None:
    """PEFT leaves modules out, and adapts parameters of them all the same."""
    for name, module in _adapted(model):
        outer = name.replace(".base_layer", "")
        if hasattr(module, "parameter_name") and exclude and _is_excluded(outer, exclude):
            raise RegrowError(
                f"lora_exclude_modules leaves out {outer}, and lora_target_parameters adapts its {module.parameter_name}.",
                "Name in lora_target_parameters only what is to be adapted.",
            )


def _is_excluded(name: str, exclude: list[str] | str) -> bool:
    if isinstance(exclude, str):
        return re.fullmatch(exclude, name) is not None
    return any(_ends_with(end, name) for end in exclude)


def adapted_names(model: Any) -> list[str]:
    """Full names, in the base model, of the modules under a LoRA adapter, and of single parameters under one."""
    return [_with_parameter(name, getattr(module, "parameter_name", None)) for name, module in _adapted(model)]


def adapted_modules(model: Any) -> set[str]:
    """Last parts of the names of modules under a LoRA adapter."""
    return {name.rpartition(".")[2] for name, module in _adapted(model) if not hasattr(module, "parameter_name")}


def _adapted(model: Any) -> list[tuple[str, Any]]:
    from peft.tuners.lora import LoraLayer

    found = ((name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer))
    return [(name.removeprefix("base_model.model."), module) for name, module in found]


def _with_parameter(module: str, parameter: str | None) -> str:
    """PEFT puts one layer around another for each parameter of a module."""
    return module if parameter is None else f"{module.replace('.base_layer', '')}.{parameter}"


def linear_names(model: Any) -> list[str]:
    """Last parts of the names of all linear modules, GPT-2's Conv1D among them, except the output head and routers."""
    head, kinds = output_head(model), (torch.nn.Linear, Conv1D)
    linear = (name for name, module in model.named_modules() if isinstance(module, kinds) and module is not head)
    return sorted({name.rpartition(".")[2] for name in linear} - router_names(model))


def router_names(model: Any) -> set[str]:
    """Last parts of the names of linear modules that choose experts with their product (Llama 4, Phi-MoE), and give out two things."""
    return {name.rpartition(".")[2] for name, module in model.named_modules() if type(module).__name__ in _ROUTERS}


def output_head(model: Any) -> Any:
    """What makes logits of hidden states, or the score of a model that judges."""
    head = model.get_output_embeddings()
    return next((getattr(model, name) for name in ("score", "classifier") if hasattr(model, name)), None) if head is None else head


def _module_names(model: Any) -> list[str]:
    return [name for name, _ in model.named_modules() if name]


def _ends_with(wanted: str, name: str) -> bool:
    return f".{name}".endswith(f".{wanted}")


def _require(model: Any, option: str, wanted: Iterable[str], names: list[str], matches: Match) -> None:
    absent = [pattern for pattern in wanted if not any(matches(pattern, name) for name in names)]
    if absent:
        raise RegrowError(
            f"{option}: this {type(model).__name__} has no module {', '.join(map(repr, absent))}.",
            f"Its linear modules are {', '.join(linear_names(model))}.",
        )

"""Arguments of an optimizer's class, from Adam's options, Dion's options and ``optim_args``."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import torch

from pipeline.errors import RegrowError
from pipeline.optimizers import BETAS, EPSILONS, Known
from pipeline.options.views import TrainOptions

_OPTIONS = {"lr": "learning_rate", "weight_decay": "weight_decay", "params": "lr_groups", "model": "base_model"}
"""What is set by an option of its own."""
_DION = {"momentum": "dion_momentum", "rank_fraction": "dion_rank_fraction", "rank_multiple_of": "dion_rank_multiple_of"}
_PROJECTION_WORDS = {
    "proj": ("random", "svd"),
    "proj_type": ("std", "reverse_std", "left", "right", "full"),
    "scale_type": ("channel", "tensor"),
}


def adam_settings(options: TrainOptions, betas: tuple[float, ...], epsilons: tuple[float, ...]) -> dict[str, Any]:
    """``betas`` and ``eps`` as a class takes them, options before the defaults given."""
    chosen = tuple(_either(getattr(options, key), default) for key, default in zip(BETAS, betas, strict=False))
    small = tuple(_either(getattr(options, key), default) for key, default in zip(EPSILONS, epsilons, strict=False))
    return ({"betas": chosen} if chosen else {}) | ({"eps": small[0] if len(small) == 1 else small} if small else {})


def _either(value: float | None, default: float) -> float:
    return default if value is None else value


def dion_settings(options: TrainOptions) -> dict[str, Any]:
    """Dion's own options."""
    momentum = {} if options.dion_momentum is None else {"momentum": options.dion_momentum}
    return momentum | {"rank_fraction": options.dion_rank_fraction, "rank_multiple_of": options.dion_rank_multiple_of}


def given_arguments(options: TrainOptions) -> dict[str, Any]:
    """``optim_args`` as a mapping, its texts read as numbers and truths where they are some.

    Raises:
        RegrowError: a text that is no list of ``name=value``.
    """
    given = options.optim_args or {}
    if isinstance(given, str):
        pairs = [item.partition("=") for item in given.split(",") if item.strip()]
        if wrong := [name for name, sign, _ in pairs if not sign]:
            raise RegrowError(
                f"optim_args: {wrong[0].strip()!r} is no name=value.", "Write a mapping, or text such as `rank=64,scale=0.5`."
            )
        given = {name.strip(): value.strip() for name, _, value in pairs}
    return {name: _read(value) for name, value in given.items()}


def _read(value: Any) -> Any:
    """A list is a tuple: optimizers compare and unpack them alike, and checkpoints keep tuples."""
    if isinstance(value, list):
        return tuple(_read(item) for item in value)
    if not isinstance(value, str):
        return value
    words: dict[str, Any] = {"true": True, "false": False, "none": None, "null": None}
    if value.lower() in words:
        return words[value.lower()]
    for number in (int, float):
        try:
            return number(value)
        except ValueError:
            continue
    return value


def check_possible(name: str, given: Mapping[str, Any], known: Known) -> None:
    """Refuse what the class takes and cannot do: packages find out at the first step, and one then ends the process.

    Raises:
        RegrowError: such an argument.
    """
    if "optim_bits" in given and "optim_bits" in known.fixed:
        raise RegrowError(f"optim_args: optim_bits is what the name {name} says.", "Write the optimizer of the bits that you want.")
    if given.get("capturable") and not torch.cuda.is_available():
        raise RegrowError("optim_args: capturable is for CUDA, and this machine has no CUDA device.", "Remove it.")
    if given.get("use_triton") and find_spec("triton") is None:
        raise RegrowError("optim_args: use_triton needs the package triton, which is not installed.", "Remove it.")
    clips = [argument for argument in ("clip_grad_norm", "clip_grad_value") if given.get(argument) is not None]
    if clips and known.updates == "during the backward pass":
        wrong = f"{name} changes weights during the backward pass, before all gradients are known"
        raise RegrowError(f"optim_args: {clips[0]}, but {wrong}.", "Remove it.")


def check_arguments(name: str, takes: Any, given: Mapping[str, Any], known: Known) -> None:
    """Refuse arguments that the optimizer ``takes`` (a class) has not, that have an option of their own, or of another kind.

    Raises:
        RegrowError: such an argument, with those there are.
    """
    options = _OPTIONS | (_DION if name == "dion" else {})
    possible = [parameter for parameter in inspect.signature(takes).parameters if parameter not in options]
    own = {"betas": known.adam_keys, "eps": [key for key in known.adam_keys if key in EPSILONS]}
    for argument in given:
        if argument in options:
            raise RegrowError(f"optim_args: {argument} has an option of its own.", f"Set {options[argument]}.")
        if own.get(argument) and not known.matrices:
            raise RegrowError(f"optim_args: {argument} has options of its own.", f"Set {' or '.join(own[argument])}.")
        if argument not in possible and argument not in known.projection:
            free = [*(item for item in possible if not own.get(item)), *known.projection]
            raise RegrowError(f"optim_args: {name} has no argument {argument!r}.", f"It has {', '.join(free) or 'none'}.")
    defaults = {key: parameter.default for key, parameter in inspect.signature(takes).parameters.items()} | dict(known.projection)
    for argument, value in given.items():
        if value is not None:  # which some take for "without it"
            _check_value(argument, value, defaults[argument])
    _check_projection({argument: value for argument, value in given.items() if argument in known.projection})


def _check_value(argument: str, value: Any, default: Any) -> None:
    """Classes look at few of their arguments before the step that needs them. A default tells what kind they want."""
    if isinstance(default, bool):
        fits, words = value in (True, False), "true or false"
    elif isinstance(default, (int, float)):
        fits, words = isinstance(value, (int, float)) and not isinstance(value, bool), "a number"
    elif isinstance(default, tuple):
        fits, words = isinstance(value, tuple) and len(value) == len(default), f"a list of {len(default)} numbers"
    else:
        return
    if not fits:
        raise RegrowError(f"optim_args: {argument} is {value!r}.", f"Write {words}, such as {_shown(default)}.")


def _shown(value: Any) -> str:
    return str(list(value) if isinstance(value, tuple) else value).lower()


def _check_projection(given: Mapping[str, Any]) -> None:
    for argument, value in given.items():
        words = _PROJECTION_WORDS.get(argument)
        if words is not None and value not in words:
            raise RegrowError(f"optim_args: {argument} is {value!r}.", f"Write {' or '.join(words)}.")
        if argument in ("rank", "update_proj_gap") and (not isinstance(value, int) or value < 1):
            raise RegrowError(f"optim_args: {argument} is {value!r}.", "Write a whole number of at least 1.")

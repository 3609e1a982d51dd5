"""Training parts of a model: some parameters, some rows of them, or a few layers at a time; and noise on what comes in."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import reduce
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from pipeline.errors import RegrowError
from pipeline.options.views import TrainOptions
from pipeline.parameter_patterns import parameter_pattern
from stages.train.adapters.relora import ReLoRA
from stages.train.model.neftune import add_noise

_ROWS = re.compile(r"(?P<name>.+)\[(?:(?P<row>\d+)|(?P<start>\d*):(?P<end>\d*))\]")


def choose_parts(model: Any, options: TrainOptions) -> None:
    """Freeze all but ``unfrozen_parameters``, and add the noise of NEFTune.

    Raises:
        RegrowError: a pattern that matches no parameter, or rows that it does not have.
    """
    if options.unfrozen_parameters:
        _freeze_others(model, options.unfrozen_parameters)
    if options.neftune_noise_alpha is not None:
        add_noise(model, options.neftune_noise_alpha)


def part_callbacks(model: Any, options: TrainOptions) -> list[TrainerCallback]:
    """What partial training and ReLoRA do at the borders of steps.

    Raises:
        RegrowError: LISA is to train layers that the model has not.
    """
    callbacks: list[TrainerCallback] = []
    if options.unfrozen_parameters:
        callbacks.append(KeepRows(model))
    if options.lisa_n_layers is not None and options.lisa_step_interval is not None:
        layers = _layers(model, options.lisa_layers_attribute, options.lisa_n_layers)
        callbacks.append(Lisa(layers, options.lisa_n_layers, options.lisa_step_interval, options.seed))
    if options.relora and options.jagged_restart_steps is not None:
        callbacks.append(ReLoRA(model, options))
    return callbacks


def _freeze_others(model: Any, patterns: list[str]) -> None:
    parameters = dict(model.named_parameters())
    rows: dict[str, list[slice]] = {}
    for pattern in patterns:
        name, span = _split(pattern)
        expression = parameter_pattern(name)
        matched = [name for name in parameters if expression.match(name)]
        if not matched:
            shown = ", ".join(name for name in parameters if not re.search(r"\.(?!0\.)\d+\.", name))
            raise RegrowError(f"unfrozen_parameters: {pattern!r} matches no parameter.", f"Those of the first layer and outside: {shown}.")
        for name in matched:
            rows.setdefault(name, []).append(_within(pattern, span, name, len(parameters[name])))
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in rows)
        if name in rows:
            _hold_rows(parameter, rows[name])


def _split(pattern: str) -> tuple[str, slice]:
    found = _ROWS.fullmatch(pattern)
    if found is None:
        return pattern, slice(0, None)
    if found["row"]:
        return found["name"], slice(int(found["row"]), int(found["row"]) + 1)
    return found["name"], slice(int(found["start"] or 0), int(found["end"]) if found["end"] else None)


def _within(pattern: str, span: slice, name: str, rows: int) -> slice:
    end = rows if span.stop is None else span.stop
    if not span.start < end <= rows:
        raise RegrowError(f"unfrozen_parameters: {pattern!r} names rows that {name} does not have.", f"It has rows 0 to {rows - 1}.")
    return slice(span.start, end)


def _hold_rows(parameter: torch.nn.Parameter, spans: list[slice]) -> None:
    """Rows outside the spans get no gradient, which would count in its norm, and are kept for :class:`KeepRows`."""
    held = torch.ones(len(parameter), dtype=torch.bool)
    for span in spans:
        held[span] = False
    if held.any():
        shape = (-1, *[1] * (parameter.dim() - 1))
        parameter.register_hook(  # type: ignore[no-untyped-call]
            lambda gradient: gradient.masked_fill(held.to(gradient.device).view(shape), 0)
        )
        parameter.held = (held, parameter.detach()[held].clone())  # type: ignore[attr-defined]


class KeepRows(TrainerCallback):
    """Puts rows that are not trained back after every step: weight decay changes them without any gradient."""

    def __init__(self, model: Any) -> None:
        self._held = [parameter for parameter in model.parameters() if hasattr(parameter, "held")]

    def on_optimizer_step(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        for parameter in self._held:
            held, rows = parameter.held
            parameter.data[held.to(parameter.device)] = rows.to(parameter.device)


def _layers(model: Any, attribute: str, count: int) -> Any:
    try:
        layers: Any = reduce(getattr, attribute.split("."), model)
        found = len(layers)
    except (AttributeError, TypeError):
        lists = [name for name, module in model.named_modules() if isinstance(module, torch.nn.ModuleList)]
        raise RegrowError(
            f"lisa_layers_attribute: this {type(model).__name__} has no list of layers at {attribute!r}.", f"It has {', '.join(lists)}."
        ) from None
    if count > found:
        raise RegrowError(f"lisa_n_layers: {count} layers of {found} cannot be drawn.", f"Write {found} or less.")
    return layers


def drawn_layers(seed: int, draw: int, layers: int, count: int) -> list[int]:
    """Which layers LISA trains after ``draw`` changes: a pure function, the same on every process and after a resume."""
    generator = np.random.Generator(np.random.PCG64([seed, draw]))
    return sorted(int(layer) for layer in generator.choice(layers, count, replace=False))


class Lisa(TrainerCallback):
    """Layerwise importance sampling (arXiv 2403.17919): a few layers are trained at a time, and all that is no layer always."""

    def __init__(self, layers: Iterable[torch.nn.Module], count: int, interval: int, seed: int) -> None:
        self._layers, self._count, self._interval, self._seed = list(layers), count, interval, seed
        self._draw = -1

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if args.world_size > 1:
            raise RegrowError("LISA freezes layers that the processes of one run would wait for.", "Train with one process.")

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        draw = state.global_step // self._interval
        if draw != self._draw:
            self._draw = draw
            active = drawn_layers(self._seed, draw, len(self._layers), self._count)
            for number, layer in enumerate(self._layers):
                layer.requires_grad_(number in active)

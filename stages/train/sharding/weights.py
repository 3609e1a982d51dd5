"""Whole weights of a model that processes share out."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from stages.train.sharding.units import put_back


@torch.no_grad()
def make_whole(model: Any, device: torch.device, *, keep: bool) -> None:
    """Put weights together, on the CPU of processes that ``keep`` them. All processes call it together.

    One parameter is whole on ``device`` at a time. Models whose weights are not shared out stay as they are.
    """
    if isinstance(model, FSDPModule):
        _replace(model, device, keep=keep)
    else:
        _gather_zero(model, keep=keep)


@torch.no_grad()
def whole_weights(model: Any, device: torch.device, *, keep: bool) -> dict[str, Tensor]:
    """The ``state_dict`` of a model that FSDP shares out, whole, for processes that ``keep`` it. All call it together."""
    put_back(model)
    gather = _gathering(device, keep=keep)
    found = {name: gather(tensor) for name, tensor in model.state_dict(keep_vars=True).items()}
    return {name: tensor for name, tensor in found.items() if tensor is not None}


def _replace(model: Any, device: torch.device, *, keep: bool) -> None:
    put_back(model)
    gather = _gathering(device, keep=keep)
    for module in list(model.modules()):
        for name, parameter in list(module._parameters.items()):
            if parameter is not None and (whole := gather(parameter)) is not None:
                module._parameters[name] = torch.nn.Parameter(whole, requires_grad=parameter.requires_grad)
        if isinstance(module, FSDPModule):
            module.__class__ = type(module).__bases__[1]  # fully_shard has put itself before the model's own class


def _gathering(device: torch.device, *, keep: bool) -> Callable[[Tensor], Tensor | None]:
    """A maker of whole tensors. What stands in a model twice is made once."""
    made: dict[int, Tensor | None] = {}

    def gather(tensor: Tensor) -> Tensor | None:
        if id(tensor) not in made:
            whole: Any = tensor.detach()
            if isinstance(tensor, DTensor):
                whole = whole.to(device).full_tensor()
            made[id(tensor)] = whole.to("cpu") if keep else None
        return made[id(tensor)]

    return gather


def _gather_zero(model: Any, *, keep: bool) -> None:
    """Those of ZeRO's stage 3."""
    parameters = [parameter for parameter in model.parameters() if hasattr(parameter, "ds_id")]
    if not parameters:
        return
    gathered = importlib.import_module("deepspeed.runtime.zero.partition_parameters").GatheredParameters
    whole = []
    for parameter in parameters:
        with gathered([parameter]):
            whole.append(parameter.detach().to("cpu", copy=True) if keep else None)
    for parameter, values in zip(parameters, whole, strict=True):
        if values is not None:
            parameter.data = values

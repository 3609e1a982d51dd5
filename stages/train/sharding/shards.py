"""What one process has of a model that is shared out: its parts of weights and optimizer states, as plain tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from pipeline.errors import RegrowError


def local(tensor: Tensor) -> Tensor:
    """This process's part of ``tensor``; both share their memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def trained_parts(model: nn.Module) -> dict[str, Tensor]:
    """The parts of the weights that are trained, by name."""
    return {name: local(parameter).detach() for name, parameter in model.named_parameters() if parameter.requires_grad}


@torch.no_grad()
def restore_parts(model: nn.Module, parts: dict[str, Tensor]) -> None:
    """Give a model back what :func:`trained_parts` returned, on the same process of as many."""
    for name, values in trained_parts(model).items():
        values.copy_(parts[name])


def optimizer_parts(optimizer: Optimizer) -> dict[str, Any]:
    """The optimizer's ``state_dict`` with parts in place of what is shared out; those stand apart, under ``parts``."""
    saved = optimizer.state_dict()
    whole: dict[int, dict[str, Any]] = {}
    parts: dict[int, dict[str, Tensor]] = {}
    for number, state in saved["state"].items():
        for key, value in state.items():
            (parts if isinstance(value, DTensor) else whole).setdefault(number, {})[key] = local(value)
    return saved | {"state": whole, "parts": parts}


def restore_optimizer(optimizer: Optimizer, saved: dict[str, Any]) -> None:
    """Give an optimizer back what :func:`optimizer_parts` returned."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state = {number: dict(values) for number, values in saved["state"].items()}
    for number, values in saved["parts"].items():
        like = parameters[number]
        state.setdefault(number, {}).update({key: _joined(value, like) for key, value in values.items()})
    optimizer.load_state_dict({"state": state, "param_groups": saved["param_groups"]})


def _joined(part: Tensor, like: DTensor) -> DTensor:
    """``part`` as this process's of a tensor that is shared out as ``like``."""
    part = part.to(like.device)
    return DTensor.from_local(part, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride())


@torch.no_grad()
def clip_gradients(model: nn.Module, most: float, device: torch.device) -> Tensor:
    """Scale gradients to a norm of ``most``, if it is larger, over all processes together. Returns the norm as it was: a scalar.

    The sum over processes is made on ``device``, also of gradients that wait in RAM.

    Raises:
        RegrowError: a weight that is trained has no gradient.
    """
    gradients = [local(_gradient(name, parameter)) for name, parameter in model.named_parameters() if parameter.requires_grad]
    square = get_total_norm(gradients).to(device, torch.float32).square()
    torch.distributed.all_reduce(square)
    norm = square.sqrt()
    scale = (most / (norm + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(scale.to(gradient.device, gradient.dtype))
    return norm


def _gradient(name: str, parameter: Tensor) -> Tensor:
    """Where only some processes had none, the exchange has failed before."""
    if parameter.grad is None:
        raise RegrowError(
            f"fsdp_config: {name} had no part in the loss, and is to be trained.",
            "Name in unfrozen_parameters what is to be trained, or train with DDP: remove fsdp_config, and add "
            "ddp_find_unused_parameters: true.",
        )
    return parameter.grad

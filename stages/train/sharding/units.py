"""A model cut into shards by torch's fully_shard (FSDP 2): layer by layer, each process keeping its part of every weight."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor
from transformers import TrainingArguments
from transformers.modeling_layers import GradientCheckpointingLayer

from pipeline.errors import RegrowError
from pipeline.options.distributed import Fsdp
from pipeline.options.views import TrainOptions


def share_out(model: Any, options: TrainOptions, arguments: TrainingArguments) -> None:
    """Leave this process its part of ``model``, where FSDP is asked for. Nothing of it changes but where its weights are.

    Each layer is gathered whole when it computes; what is in no layer (embeddings, the last norm, the output head, which may be
    one weight with the embeddings) is gathered together. Weights that are trained and weights that are not stand side by side.

    Raises:
        RegrowError: the model has no layers, or none of the class that the options name; weights of two kinds of numbers are trained
            in one of them.
    """
    config = options.fsdp_config
    if config is None:
        return
    device = arguments.device  # to ask for it is to join the other processes
    mesh = init_device_mesh(device.type, (arguments.world_size,))
    again = config.reshard_after_forward is not False
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    for layer in _layers(base, config):
        _require_one_dtype(layer)
        fully_shard(layer, mesh=mesh, reshard_after_forward=again, offload_policy=_offloading(config))
    _require_one_dtype(model)
    fully_shard(model, mesh=mesh, reshard_after_forward=again, offload_policy=_offloading(config))
    # As transformers marks what it has sharded itself: its Trainer then neither moves the weights nor copies them by DDP.
    base._is_distributed_loading_by_transformers = True


def _layers(model: Any, config: Fsdp) -> list[nn.Module]:
    name = config.transformer_layer_cls_to_wrap
    kinds = {type(module).__name__ for module in model.modules() if isinstance(module, GradientCheckpointingLayer)}
    wanted = {part.strip() for part in name.split(",")} if name else kinds
    found = [module for module in model.modules() if type(module).__name__ in wanted]
    missing = sorted(wanted - {type(module).__name__ for module in found})
    if missing:
        works = f"Write {' or '.join(sorted(kinds))}, or remove it." if kinds else "Name the class of one of its modules."
        raise RegrowError(f"fsdp_config.transformer_layer_cls_to_wrap: {type(model).__name__} has no {missing[0]}.", works)
    if not found:
        raise RegrowError(
            f"fsdp_config: {type(model).__name__} does not say what its layers are.",
            "Name their class: fsdp_config: {transformer_layer_cls_to_wrap: …}.",
        )
    return found


def _require_one_dtype(unit: nn.Module) -> None:
    """Gradients of a unit travel together. What has been cut already travels by itself."""
    trained = {name: weight for name, weight in unit.named_parameters() if weight.requires_grad and not isinstance(weight, DTensor)}
    kinds = {weight.dtype: name for name, weight in trained.items()}
    if len(kinds) > 1:
        told = " and ".join(f"{str(kind).removeprefix('torch.')} ({name})" for kind, name in kinds.items())
        raise RegrowError(
            f"fsdp_config: a {type(unit).__name__} has trained weights of {told}, whose gradients cannot travel together.",
            "Write bf16: true, which holds in float32 what is trained, or remove fsdp_config.",
        )


def _offloading(config: Fsdp) -> OffloadPolicy:
    pins = torch.cuda.is_available() and config.cpu_offload_pin_memory is not False
    return CPUOffloadPolicy(pin_memory=pins) if config.offload_params else OffloadPolicy()


def put_back(model: nn.Module) -> None:
    """Give up the weights that a forward pass without a backward pass has left whole. Parameters are then shards again."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()

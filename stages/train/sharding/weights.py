"""Whole weights of a model that processes share out."""

from __future__ import annotations

import importlib
from typing import Any

import torch


@torch.no_grad()
def make_whole(model: Any, *, keep: bool) -> None:
    """Put the weights of ZeRO's stage 3 together, on the CPU of processes that ``keep`` them. All processes call it together.

    One parameter is whole on a device at a time. Models whose weights are not shared out stay as they are.
    """
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

"""State that some packages keep where a checkpoint misses it, or in a form that a checkpoint refuses to read back."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch.optim import Optimizer

_PROJECTOR = "projector"


def keep_precision(optimizer: Optimizer) -> None:
    """Let a checkpoint give state back in the precision it had. torch rounds it to that of the weights."""
    saved: dict[int, dict[str, Any]] = {}

    def remember(_: Optimizer, state_dict: dict[str, Any]) -> None:
        saved.update(state_dict["state"])

    def restore(restored: Optimizer) -> None:
        for number, parameter in enumerate(parameter for group in restored.param_groups for parameter in group["params"]):
            state = restored.state.get(parameter, {})
            for key, value in saved.get(number, {}).items():
                if isinstance(value, torch.Tensor) and value.dtype != state[key].dtype:
                    state[key] = value.to(state[key].device)
        saved.clear()

    optimizer.register_load_state_dict_pre_hook(remember)
    optimizer.register_load_state_dict_post_hook(restore)


def keeping_projectors(kind: Any, package: str) -> Any:
    """``kind`` with checkpoints that hold GaLore's and APOLLO's projectors as plain values: no checkpoint reads objects back."""

    class Keeping(kind):  # type: ignore[misc]
        def state_dict(self) -> dict[str, Any]:
            saved: dict[str, Any] = super().state_dict()
            return saved | {"state": {number: _packed(state) for number, state in saved["state"].items()}}

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            states = state_dict["state"]
            rest = {number: {key: state[key] for key in state if key != _PROJECTOR} for number, state in states.items()}
            super().load_state_dict(state_dict | {"state": rest})
            for number, parameter in enumerate(parameter for group in self.param_groups for parameter in group["params"]):
                if _PROJECTOR in states.get(number, {}):
                    self.state[parameter][_PROJECTOR] = _unpacked(states[number][_PROJECTOR], package, parameter.device)

    return Keeping


def _packed(state: dict[str, Any]) -> dict[str, Any]:
    projector = state.get(_PROJECTOR)
    if projector is None:
        return state
    return state | {_PROJECTOR: {"module": type(projector).__module__, "name": type(projector).__name__, "values": vars(projector)}}


def _unpacked(packed: dict[str, Any], package: str, device: torch.device) -> Any:
    module, _, rest = packed["module"].partition(".")
    if module != package:
        raise ValueError(f"a projector of {packed['module']} in a checkpoint of {package}")
    kind = getattr(importlib.import_module(f"{package}.{rest}"), packed["name"])
    projector = kind.__new__(kind)
    vars(projector).update({key: _moved(value, device) for key, value in packed["values"].items()})
    return projector


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, (list, tuple)):
        return [_moved(item, device) for item in value]
    return value.to(device) if isinstance(value, torch.Tensor) else value


def keeping_group_state(kind: Any) -> Any:
    """``kind`` with checkpoints that hold what GrokAdamW keeps in its groups, under the parameters themselves."""

    class Keeping(kind):  # type: ignore[misc]
        def state_dict(self) -> dict[str, Any]:
            saved: dict[str, Any] = super().state_dict()
            groups = [
                group | {"state": [of.get("state", {}).get(parameter, {}) for parameter in of["params"]]}
                for group, of in zip(saved["param_groups"], self.param_groups, strict=True)
            ]
            return saved | {"param_groups": groups}

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            super().load_state_dict(state_dict)
            for group in self.param_groups:
                states = group.pop("state", [])
                group["state"] = {parameter: state for parameter, state in zip(group["params"], states, strict=True) if state}

    return Keeping

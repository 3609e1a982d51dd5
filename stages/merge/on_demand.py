"""A model of which nothing is in memory but what it computes with at the moment: weights are read from their files as they are used.

transformers lays the model out and says which stored tensor is which parameter. Modules then get a class of their own whose parameters
are properties that read, as `torch.nn.utils.parametrize` does it; so whatever way a model's code reaches a weight, it finds it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.models import judges, load_causal_lm, load_judge
from stages.merge.checkpoint import Checkpoint

LARGE = 256 * 2**20
"""Bytes of a float32 matrix above which output heads are multiplied in parts, and of embeddings only the rows in use are read."""

Read = Callable[[str, slice], Tensor]
"""Rows of a stored tensor, by its name in the files."""


@dataclass(frozen=True)
class Laid:
    """A model without weights.

    Attributes:
        model: each of its parameters is one zero that claims to be a whole tensor.
        folder: what it was laid out from.
        stored: name of a parameter → the file that holds it, and its name there.
    """

    model: Any
    folder: Path
    stored: Mapping[str, tuple[Path, str]]


def lay_out(folder: Path, scratch: Path, vocabulary: int | None = None) -> Laid:
    """The model in ``folder``, in float32.

    Args:
        scratch: gets the tensors that the model holds otherwise than its files do (stacks of experts).
        vocabulary: rows of embeddings and head, if they are not to be those of the folder.

    Raises:
        RegrowError: transformers cannot open it, or its weights do not fill it.
    """
    from accelerate.hooks import remove_hook_from_submodules

    # In the dtype of its files: transformers reads nothing then, and would convert all of it otherwise.
    placed: dict[str, Any] = {
        "device_map": {"": "disk"},
        "offload_folder": str(scratch),
        "dtype": getattr(torch, Checkpoint(folder).main_dtype()),
    }
    kind = judges(folder)
    if kind is None:
        model = load_causal_lm(folder, attn_implementation=None, **placed)
    elif kind.endswith("SequenceClassification"):
        model = load_judge(folder, "SequenceClassification", 1, **placed)
    else:
        model = load_judge(folder, "TokenClassification", 2, **placed)
    index = model.get_input_embeddings()._hf_hook.weights_map.dataset.index
    remove_hook_from_submodules(model)
    for module in model.modules():
        module.__dict__.pop("forward", None)  # which the hooks leave behind, and which would come before that of the class
    del model.hf_device_map
    if vocabulary not in (None, len(model.get_input_embeddings().weight)):
        model.resize_token_embeddings(vocabulary, mean_resizing=False)
    claim(model)
    return Laid(model, folder, {name: (Path(entry["safetensors_file"]), entry["weight_name"]) for name, entry in index.items()})


def claim(model: Any) -> None:
    """Give parameters without data a single zero on the CPU: libraries move what they add to a model to where its weights are."""
    claimed: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and parameter.is_meta:
                zero = torch.zeros((), dtype=torch.float32).expand(parameter.shape)
                module._parameters[name] = claimed.setdefault(id(parameter), nn.Parameter(zero, requires_grad=False))


def claims(module: nn.Module) -> list[str]:
    """Parameters of a module that have no data of their own."""
    sizes = {name: (parameter.nbytes, parameter.untyped_storage().nbytes()) for name, parameter in module.named_parameters(recurse=False)}
    return [name for name, (claimed, held) in sizes.items() if held < claimed]


class Weights:
    """The parameters of a model, read in float32 when asked for. Keeps those of the module that was asked last."""

    def __init__(self, laid: Laid, read: Read, ids: Tensor) -> None:
        """``ids``: the only tokens that will be looked up."""
        self._laid, self._read, self._ids = laid, read, sorted({*ids.flatten().tolist()})
        self._converted: dict[Path, Checkpoint] = {}
        self._module = ""
        self._held: dict[str, nn.Parameter] = {}

    def whole(self, module: str, name: str) -> nn.Parameter:
        """All of a parameter."""
        return self._hold(module, name, lambda: self.rows(f"{module}.{name}", slice(None)))

    def looked_up(self, module: str, name: str, shape: torch.Size) -> nn.Parameter:
        """An embedding of which the rows in use are filled. numpy's zeros take memory only where something is written."""

        def fill() -> Tensor:
            table = torch.from_numpy(np.zeros(tuple(shape), np.float32))
            for row in self._ids:
                table[row] = self.rows(f"{module}.{name}", slice(row, row + 1))[0]
            return table

        return self._hold(module, name, fill)

    def rows(self, parameter: str, rows: slice) -> Tensor:
        """Some rows of a parameter."""
        file, stored = self._laid.stored[parameter]
        if file.parent == self._laid.folder:
            return self._read(stored, rows).float()
        if file not in self._converted:
            self._converted[file] = Checkpoint(file.parent, file.name)
        return self._converted[file].rows(stored, rows).float()

    def _hold(self, module: str, name: str, make: Callable[[], Tensor]) -> nn.Parameter:
        if self._module != module:
            self._module, self._held = module, {}
        if name not in self._held:
            self._held[name] = nn.Parameter(make(), requires_grad=False)
        return self._held[name]


def read_on_demand(laid: Laid, read: Read, ids: Tensor, home: Callable[[str], str] = lambda path: path) -> None:
    """Have the model read its weights when it needs them.

    Args:
        read: where from.
        ids: all tokens that it will be given.
        home: the name of a module when the model was laid out, from the name that it has now.
    """
    weights = Weights(laid, read, ids)
    modules = dict(laid.model.named_modules())
    wrappers = {path: module for path, module in modules.items() if type(module).__name__ == "ParamWrapper"}
    wrapped = {module.get_base_layer() for module in wrappers.values()}
    for path, module in modules.items():
        if path in wrappers and path.rpartition(".")[0] not in wrappers:
            _fill_while_it_runs(module, home(path), weights)
        elif module not in wrapped and claims(module):
            _give(module, home(path), weights)


def _give(module: nn.Module, path: str, weights: Weights) -> None:
    """Change the class of ``module`` into one that reads."""
    kind = type(module)
    large = isinstance(module, nn.Linear | nn.Embedding) and module.weight.nbytes > LARGE
    members: dict[str, Any] = {name: _reading(weights, path, name) for name in claims(module)}
    if large and kind.forward is nn.Linear.forward:
        members["forward"] = _in_parts(weights, path)
    elif large and isinstance(module, nn.Embedding):
        members["weight"] = _looking_up(weights, path, module.weight.shape)
    module.__class__ = type(kind.__name__, (kind,), members)


def _reading(weights: Weights, path: str, name: str) -> property:
    return property(lambda self: weights.whole(path, name))


def _looking_up(weights: Weights, path: str, shape: torch.Size) -> property:
    return property(lambda self: weights.looked_up(path, "weight", shape))


def _in_parts(weights: Weights, path: str) -> Callable[[Any, Tensor], Tensor]:
    """The forward of a linear layer, a part of its outputs after the other."""

    def forward(self: Any, inputs: Tensor) -> Tensor:
        result = inputs.new_empty(*inputs.shape[:-1], self.out_features)
        step = max(1, LARGE // 4 // (4 * self.in_features))
        for first in range(0, self.out_features, step):
            part = slice(first, min(first + step, self.out_features))
            bias = None if self.bias is None else self.bias[part]
            result[..., part] = functional.linear(inputs, weights.rows(f"{path}.weight", part), bias)
        return result

    return forward


def _fill_while_it_runs(wrapper: Any, path: str, weights: Weights) -> None:
    """peft adapts single parameters by a parametrization, which takes hold of them: here they must be in their place."""
    module = wrapper.get_base_layer()
    claimed = {name: module._parameters[name] for name in claims(module)}

    def fill(*_: Any) -> None:
        module._parameters.update({name: weights.whole(path, name) for name in claimed})

    def empty(*_: Any) -> None:
        module._parameters.update(claimed)

    wrapper.register_forward_pre_hook(fill)
    wrapper.register_forward_hook(empty)

"""The optimizer that the options name, over the groups that they ask for."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, cast

import torch
from torch import nn
from torch.optim import AdamW, Optimizer

from pipeline.errors import RegrowError
from pipeline.optimizers import BUILT_ON, OPTIMIZERS, PINNED, Known
from pipeline.options.views import TrainOptions
from stages.train.optimizers.adopt import Adopt
from stages.train.optimizers.checkpointed import keep_precision, keeping_group_state, keeping_projectors
from stages.train.optimizers.dion import Dion
from stages.train.optimizers.groups import grouped, hidden_matrices, projected, trained
from stages.train.optimizers.joined import Joined
from stages.train.optimizers.layerwise import Layerwise
from stages.train.optimizers.settings import adam_settings, check_arguments, check_possible, dion_settings, given_arguments
from stages.train.optimizers.sinkgd import SinkGD

_OWN: dict[str, type[Optimizer]] = {"adopt_adamw": Adopt, "dion": Dion, "sinkgd": SinkGD}
_ADAMW = ((0.9, 0.999), (1e-8,))


def build_optimizer(model: Any, options: TrainOptions, warmup_steps: int) -> Optimizer:
    """The optimizer of a run over the trained parameters of ``model``.

    ``warmup_steps`` is for those that warm up by themselves.

    Raises:
        RegrowError: a package, a GPU, an argument or a parameter that the options ask for is not there.
    """
    name = options.optimizer
    known = OPTIMIZERS[name]
    _check_alone(name, known)
    kind, given = check_optimizer(options)
    try:
        if known.matrices:
            return Joined([_precise(part) for part in _parts(model, options, kind, given)])
        arguments = {"lr": options.learning_rate} | _arguments(options, kind, known, warmup_steps) | given
        if known.own_loop:
            return cast(Optimizer, kind(model, weight_decay=options.weight_decay, **arguments))
        optimizer = _precise(_kept(kind, known)(_groups(model, options, known, arguments), **arguments))
    except torch.OutOfMemoryError:
        raise
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        said = str(error) or type(error).__name__
        raise RegrowError(f"optimizer: {name} does not take its arguments: {said}", "Check optim_args.") from error
    if known.fixed.get("optim_bits") == 8:
        _keep_embeddings_whole(model)
    return Layerwise(optimizer) if known.updates == "during the backward pass" else optimizer


def check_optimizer(options: TrainOptions) -> tuple[Any, dict[str, Any]]:
    """The class of the optimizer and its further arguments: what can be known before a model is loaded, which may take minutes.

    Raises:
        RegrowError: a package or a GPU that it needs is not there, or ``optim_args`` are not its.
    """
    kind, given = optimizer_class(options.optimizer), given_arguments(options)
    known = OPTIMIZERS[options.optimizer]
    check_arguments(options.optimizer, kind, given, known)
    check_possible(options.optimizer, given, known)
    return kind, given


def _precise(optimizer: Optimizer) -> Optimizer:
    keep_precision(optimizer)
    return optimizer


def _check_alone(name: str, known: Known) -> None:
    """In the backward pass a process has its own gradients only."""
    processes = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    if known.updates == "during the backward pass" and processes > 1:
        raise RegrowError(
            f"optimizer: {name} updates weights before {processes} processes could share their gradients.",
            "Train with one process, or write an optimizer whose name does not end in _layerwise, such as adafactor.",
        )


def optimizer_class(name: str) -> Any:
    """The class of an optimizer.

    Raises:
        RegrowError: its package is missing or of another version, or it needs a GPU and there is none.
    """
    known = OPTIMIZERS[name]
    for package in filter(None, (known.package, BUILT_ON.get(known.package))):
        _check_package(name, package, PINNED[known.package][2])
    if known.needs and not torch.cuda.is_available():
        raise RegrowError(
            f"optimizer: {name} needs {known.needs}, and this machine has none.", "Write another optimizer, such as adamw_torch_fused."
        )
    if name in _OWN:
        return _OWN[name]
    module, _, attribute = known.place.partition(":")
    with _undisturbed():
        return getattr(importlib.import_module(module), attribute)


def _check_package(name: str, package: str, extra: str) -> None:
    distribution, wanted, _ = PINNED[package]
    install = f"Run: pip install 'regrow[{extra}]'"
    if importlib.util.find_spec(package) is None:
        raise RegrowError(f"optimizer: {name} needs the package {distribution}, which is not installed.", install)
    if (found := version(distribution).partition("+")[0]) != wanted:
        raise RegrowError(f"optimizer: {name}: {distribution} is {found} here; results are those of {wanted}.", install)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Some packages set up logging for the whole program when they are imported, or use what torch has renamed since."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    warnings.filterwarnings("ignore", message=r".*torch\.cuda\.amp\.autocast.*|.*device_type of 'cuda'.*", module=r"grokadamw|torch\.amp")
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def _arguments(options: TrainOptions, kind: Any, known: Known, warmup_steps: int) -> dict[str, Any]:
    takes = inspect.signature(kind).parameters
    arguments = adam_settings(options, known.betas, known.epsilons) | dict(known.fixed)
    if "warmup_steps" in takes and options.lr_scheduler == "constant":  # any other schedule warms up by itself
        arguments["warmup_steps"] = warmup_steps
    if "triton" in takes and not torch.cuda.is_available():
        arguments["triton"] = False
    return arguments


def _groups(model: Any, options: TrainOptions, known: Known, arguments: dict[str, Any]) -> list[dict[str, Any]]:
    """Arguments of the projection move from ``arguments`` to the groups that are projected."""
    parameters = trained(model)
    if not known.projection:
        return grouped(model, options, parameters)
    projection = {name: arguments.pop(name, default) for name, default in known.projection.items()}
    targets = projected(model, options.optim_target_modules or "all_linear")
    whole, low_rank = _split(parameters, targets)
    groups = [group for group in grouped(model, options, low_rank) if group["params"]]
    return [*grouped(model, options, whole), *(group | projection for group in groups)]


def _split(parameters: dict[str, nn.Parameter], names: set[str]) -> tuple[dict[str, nn.Parameter], dict[str, nn.Parameter]]:
    """(the others, those named)."""
    inside = {name: parameter for name, parameter in parameters.items() if name in names}
    return {name: parameter for name, parameter in parameters.items() if name not in names}, inside


def _parts(model: Any, options: TrainOptions, kind: Any, given: dict[str, Any]) -> tuple[Optimizer, Optimizer]:
    """AdamW for embeddings, head and vectors, whose first group is the main one; ``kind`` for the matrices of hidden layers."""
    rest, matrices = _split(trained(model), hidden_matrices(model))
    if not matrices:
        raise RegrowError(
            f"optimizer: {options.optimizer} trains matrices of hidden layers, and none is trained here.", "Write adamw_torch_fused."
        )
    adamw = AdamW(grouped(model, options, rest), lr=options.learning_rate, **adam_settings(options, *_ADAMW))
    dion = options.optimizer == "dion" and options.dion_lr is not None
    peak = options.dion_lr if dion else options.learning_rate
    # Groups of a rate of their own keep it, also one that equals learning_rate; multiples are those of the matrices' rate.
    groups = grouped(model, options.model_copy(update={"learning_rate": peak}), matrices)
    filled = [group for group in groups if group["params"]]
    own = dion_settings(options) if options.optimizer == "dion" else {}
    return adamw, kind(filled, lr=peak, **(dict(OPTIMIZERS[options.optimizer].fixed) | own | given))


def _kept(kind: Any, known: Known) -> Any:
    """``kind`` with all of its state in checkpoints."""
    if known.projection:
        return keeping_projectors(kind, known.package)
    return keeping_group_state(kind) if known.package == "grokadamw" else kind


def _keep_embeddings_whole(model: Any) -> None:
    """As transformers has it: 8-bit states of embeddings, of which a step touches few rows, are unstable."""
    manager = importlib.import_module("bitsandbytes").optim.GlobalOptimManager.get_instance()
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            manager.register_module_override(module, "weight", {"optim_bits": 32})

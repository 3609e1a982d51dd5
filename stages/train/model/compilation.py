"""torch.compile: when, of what, and what it needs.

A model that learns from text is compiled layer by layer: all of one kind share the code, so that compiling takes seconds where it
takes minutes for the whole. Attention by documents stays what it is, one call within that code; how many documents a batch has, and
how long they are, is given to it as data.
"""

from __future__ import annotations

import os
import shutil
from typing import Any

import torch
import torch._dynamo
from transformers.modeling_layers import GradientCheckpointingLayer

from pipeline.errors import RegrowError
from pipeline.options.views import TrainOptions

_INDUCTOR = "inductor"
_COMPILERS = ("g++", "clang++")


def compiles(options: TrainOptions) -> bool:
    """Whether the model is compiled: `auto` does on a GPU without DeepSpeed; a CPU gains nothing measurable and waits for minutes.

    Raises:
        RegrowError: asked for, with a backend that is not there or that lacks its compiler.
    """
    if options.torch_compile == "auto":
        return torch.cuda.is_available() and not options.deepspeed
    if options.torch_compile:
        _check_backend(options.torch_compile_backend or _INDUCTOR)
    return options.torch_compile


def compiles_layers(model: Any, options: TrainOptions) -> bool:
    """Whether layers are compiled one by one. Otherwise the Trainer compiles the whole model: TRL's trainers call models in many ways."""
    learns_from_text = options.rl is None and not options.reward_model and not options.process_reward_model
    return learns_from_text and compiles(options) and bool(_layers(model))


def compile_layers(model: Any, options: TrainOptions) -> None:
    """Have every layer compiled when it is first called, if :func:`compiles_layers`."""
    if compiles_layers(model, options):
        for layer in _layers(model):
            layer.compile(**settings_of(options))


def settings_of(options: TrainOptions) -> dict[str, Any]:
    """Arguments of ``torch.compile``."""
    return {"backend": options.torch_compile_backend or _INDUCTOR, "mode": options.torch_compile_mode}


def _layers(model: torch.nn.Module) -> list[torch.nn.Module]:
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


def _check_backend(backend: str) -> None:
    known = torch._dynamo.list_backends(exclude_tags=())
    if backend not in known:
        raise RegrowError(f"torch_compile_backend: torch has no {backend!r} here.", f"Those it has are {', '.join(sorted(known))}.")
    named = os.environ.get("CXX")
    if backend == _INDUCTOR and not torch.cuda.is_available() and not any(map(shutil.which, (named,) if named else _COMPILERS)):
        raise RegrowError(
            f"torch_compile: true needs a C++ compiler on a CPU, and there is no {named or ' or '.join(_COMPILERS)} here.",
            "Install one (g++), name it in the environment variable CXX, or set torch_compile: false.",
        )

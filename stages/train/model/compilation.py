"""torch.compile: when, and what it needs."""

from __future__ import annotations

import os
import shutil

import torch
import torch._dynamo

from pipeline.errors import RegrowError
from pipeline.options.views import TrainOptions

_INDUCTOR = "inductor"
_COMPILERS = ("g++", "clang++")


def compiles(options: TrainOptions) -> bool:
    """Whether the model is compiled: `auto` does on a GPU; a CPU gains nothing that could be measured and waits for minutes.

    Raises:
        RegrowError: asked for, with a backend that is not there or that lacks its compiler.
    """
    if options.torch_compile == "auto":
        return torch.cuda.is_available()
    if options.torch_compile:
        _check_backend(options.torch_compile_backend or _INDUCTOR)
    return options.torch_compile


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

"""The vLLM server that generates answers for GRPO: whether it can run here, and how it is started."""

from __future__ import annotations

import os
import warnings
from importlib.util import find_spec

from pipeline.errors import MissingExtra, RegrowError
from pipeline.options.online import VllmServer
from pipeline.project import Project


def require_vllm(needed_for: str, otherwise: str) -> None:
    """Refuse now what would fail after a model was loaded.

    Raises:
        RegrowError: there is no GPU, or no vLLM; ``otherwise`` says what to do without.
    """
    import torch

    if not torch.cuda.is_available():
        raise RegrowError(f"{needed_for} needs a CUDA GPU, and this machine has none.", otherwise)
    if find_spec("vllm") is None:
        raise MissingExtra(needed_for, "vllm", "vllm")


def command(project: Project, options: VllmServer) -> list[str]:
    """vLLM's own server on data/base, as TRL's trainers need it: the trainer sends it new weights while it runs.

    Raises:
        RegrowError: there is no data/base yet.
    """
    for name in ("base", "tokenizer"):
        if not (project.data / name / "manifest.json").is_file():
            raise RegrowError(f"{project.data / name} is not there yet.", "Run `regrow fetch` first.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TRL's command of the same name is going away; how a server must be started is not
        from trl.scripts.vllm_serve import ScriptArguments, build_command
    arguments = ScriptArguments(
        model=str(project.data / "base"),
        tensor_parallel_size=options.tensor_parallel_size,
        data_parallel_size=options.data_parallel_size,
        host=options.host,
        port=options.port,
        gpu_memory_utilization=options.gpu_memory_utilization or 0.9,
        dtype=options.dtype,
        max_model_len=options.max_model_len,
        enable_prefix_caching=options.enable_prefix_caching,
    )
    parser = [] if options.enable_reasoning is False or not options.reasoning_parser else ["--reasoning-parser", options.reasoning_parser]
    made: list[str] = build_command(arguments, ["--tokenizer", str(project.data / "tokenizer"), *parser])
    return made


def serve(project: Project, options: VllmServer) -> None:
    """Become that server.

    Raises:
        RegrowError: it cannot run here.
    """
    require_vllm("regrow vllm-serve", "Remove trl.use_vllm: transformers generates the answers then.")
    made = command(project, options)
    # The endpoints that take new weights are part of vLLM's development mode.
    os.execve(made[0], made, os.environ | {"VLLM_SERVER_DEV_MODE": "1"})

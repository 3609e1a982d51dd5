"""Options of GRPO to what TRL's class of arguments takes."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch

from pipeline.errors import MissingExtra, RegrowError
from pipeline.generation import trl_of
from pipeline.options.views import TrainOptions
from pipeline.vllm_server import require_vllm
from stages.train.online.vllm import vllm_settings


def grpo_settings(options: TrainOptions) -> dict[str, Any]:
    """Settings besides those of every training.

    ``beta`` is set later, and the reference is regrow's own: TRL would load it again from a folder, where it is not the model that
    is trained. So are logs of answers, and the answers of an evaluation, which TRL would want to fill a batch.

    Raises:
        RegrowError: something that this machine cannot do.
    """
    trl = trl_of(options)
    if trl.use_vllm:
        require_vllm("trl.use_vllm: true", "Remove it: transformers generates the answers then.")
    if trl.use_liger_kernel:
        _require_liger()
    return vllm_settings(options) | {
        "num_generations": trl.num_generations,
        "num_generations_eval": 1,
        "max_completion_length": trl.max_completion_length,
        "temperature": trl.temperature,
        "top_p": trl.top_p,
        "top_k": max(trl.top_k, 0),
        "min_p": trl.min_p,
        "repetition_penalty": trl.repetition_penalty,
        "num_iterations": trl.num_iterations,
        "epsilon": trl.epsilon,
        "epsilon_high": trl.epsilon_high,
        "loss_type": trl.loss_type,
        "importance_sampling_level": trl.importance_sampling_level,
        "scale_rewards": trl.scale_rewards,
        "multi_objective_aggregation": "normalize_then_sum" if options.rl == "gdpo" else "sum_then_normalize",
        "mask_truncated_completions": trl.mask_truncated_completions,
        "reward_weights": trl.reward_weights or None,
        "ref_model_mixup_alpha": trl.ref_model_mixup_alpha,
        "ref_model_sync_steps": trl.ref_model_sync_steps,
        "use_liger_kernel": trl.use_liger_kernel,
        "pad_to_multiple_of": options.pad_to_multiple_of,
        "beta": 0.0,
    }


def beta_of(options: TrainOptions) -> float:
    """How strongly the reference holds the model; 0 needs none."""
    named = [trl_of(options).beta, options.rl_beta]
    return next((value for value in named if value is not None), 0.0)


def _require_liger() -> None:
    if not torch.cuda.is_available():
        raise RegrowError("trl.use_liger_kernel: true needs a CUDA GPU, and this machine has none.", "Remove it.")
    if find_spec("liger_kernel") is None:
        raise MissingExtra("trl.use_liger_kernel: true", "liger-kernel", "liger")

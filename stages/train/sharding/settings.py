"""What DeepSpeed is told: what the file asks for, and all that other options decide."""

from __future__ import annotations

import copy
import importlib
import warnings
from typing import Any

from pipeline.errors import RegrowError
from pipeline.options.views import TrainOptions
from stages.train.model.precision import Precision
from stages.train.packages import require

_SELDOM = 2**31 - 1


def prepare_deepspeed(options: TrainOptions, precision: Precision) -> None:
    """Nothing, where it is not asked for. To be called before a model is loaded.

    DeepSpeed 0.19 compiles collectives in shared memory for CPUs where there is a compiler. Training does not use them, and a
    build that was killed leaves a lock behind, at which every later run would wait for ever: they are switched off.

    Raises:
        RegrowError: DeepSpeed is not there, or is told of other numbers than this run computes in.
    """
    if not options.deepspeed:
        return
    require("deepspeed", "deepspeed")
    enabled = _asked(options).get("bf16", {}).get("enabled", "auto")
    if enabled != "auto" and enabled != (precision == "bf16"):
        computes = f"with bf16: {str(options.bf16).lower()} this run computes in {precision}"
        raise RegrowError(
            f"deepspeed: bf16.enabled is {str(enabled).lower()}, and {computes}.",
            'Write "auto" there, or bf16: true or false in params.yaml.',
        )
    importlib.import_module("deepspeed").ops.__compatible_ops__["deepspeed_shm_comm"] = False
    warnings.filterwarnings("ignore", message=".*(all_gather_into_tensor|reduce_scatter_tensor).*", category=FutureWarning)


def zero_settings(options: TrainOptions, precision: Precision, world_size: int) -> dict[str, Any]:
    """For ``deepspeed`` of transformers' TrainingArguments.

    bfloat16 is what it is without DeepSpeed: products under autocast, and weights, gradients and sums in float32. DeepSpeed's own
    bf16 would round the weights, those that are not trained and the frequencies of rotary embeddings among them.
    """
    zero = copy.deepcopy(_asked(options)["zero_optimization"])
    if zero["stage"] == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True  # checkpoints hold a model; the numbers are not changed
    micro, accumulation = options.micro_batch_size, options.gradient_accumulation_steps
    return {
        "zero_optimization": zero,
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": accumulation,
        "train_batch_size": micro * accumulation * world_size,
        "gradient_clipping": float(options.max_grad_norm),
        "torch_autocast": {"enabled": precision == "bf16", "dtype": "bfloat16", "lower_precision_safe_modules": []},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,  # the optimizer is the one that the options name, wherever its states are
        "steps_per_print": _SELDOM,
    }


def _asked(options: TrainOptions) -> dict[str, Any]:
    if not isinstance(options.deepspeed, dict):
        raise RegrowError(
            f"deepspeed: {options.deepspeed} has not been read.", "Name a file beside params.yaml, or write the settings themselves."
        )
    return options.deepspeed

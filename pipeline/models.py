"""Opens a causal language model from a local folder. Nothing here reaches the network or runs code that comes with a model."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import RegrowError

if TYPE_CHECKING:
    import torch

# While they are imported, torchao warns of every kernel library for hardware that is not there, and torch of torchao's enums;
# the others report every default they take.
_TALKATIVE = ("torchao", "torch.utils._pytree", "transformers", "peft", "accelerate", "huggingface_hub", "datasets")


def let_idle_threads_sleep() -> None:
    """Have OpenMP threads sleep, not spin, while they wait for each other. Only works before torch is imported.

    Spinning threads hold the cores that the others need as soon as anything else runs on the machine: with two threads on
    two cores and one other busy process, training ran at 13 tokens/s with spinning and at 115 with sleeping threads.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def quiet_libraries() -> None:
    """Silence the libraries' notes and progress bars; their errors still come through.

    Call it before anything else is imported from transformers or peft: some of the notes come while importing.
    """
    import torch  # noqa: F401  sets the levels of its own loggers when it is imported
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    # peft asks for an attribute by its old name at every new adapter.
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.ERROR)


def load_causal_lm(folder: Path, *, dtype: torch.dtype | None = None, attn_implementation: str | None = "sdpa") -> Any:
    """The model in ``folder`` (a plain Hugging Face directory), on the CPU and in evaluation mode.

    Args:
        folder: ``config.json`` and safetensors files.
        dtype: of the weights; float32 when not given.
        attn_implementation: a kernel by its name in transformers; None takes sdpa where the architecture has it, else eager.

    Raises:
        RegrowError: the folder holds no model that transformers can open.
    """
    import torch
    from transformers import AutoModelForCausalLM

    quiet_libraries()
    try:
        return AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.float32 if dtype is None else dtype,
            attn_implementation=attn_implementation,
            local_files_only=True,
            trust_remote_code=False,
        )
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise RegrowError(
            f"The model in {folder} cannot be opened with attn_implementation {attn_implementation!r}: {reason}",
            "It must be a causal language model of a type that transformers knows, with config.json and safetensors weights.",
        ) from error

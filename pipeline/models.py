"""Opens a causal language model from a local folder. Nothing here reaches the network or runs code that comes with a model."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterable, Mapping
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
        RegrowError: the folder holds no model that transformers can open, or weights that do not fill the model.
    """
    import torch

    what = f"The model in {folder}"
    return _open(folder, what, attn_implementation, dtype=torch.float32 if dtype is None else dtype)


def check_weights_fit(folder: Path, what: str) -> None:
    """Go through the loading of the model in ``folder`` without memory for its weights: names and shapes alone.

    Raises:
        RegrowError: :func:`load_causal_lm` would refuse it. ``what`` is what the message calls the model.
    """
    _open(folder, what, None, device_map={"": "meta"})


def _open(folder: Path, what: str, attn_implementation: str | None, **settings: Any) -> Any:
    quiet_libraries()
    from transformers import AutoModelForCausalLM

    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            attn_implementation=attn_implementation,
            local_files_only=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # they are refused below, by name
            output_loading_info=True,
            **settings,
        )
    except (OSError, ValueError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RegrowError(
            f"{what} cannot be opened with attn_implementation {attn_implementation!r}: {reason}",
            "It must be a causal language model of a type that transformers knows, with config.json and safetensors weights.",
        ) from error
    model, found = loaded
    _check_filled(what, type(model).__name__, found)
    return model


def _check_filled(what: str, architecture: str, found: Mapping[str, Iterable[Any]]) -> None:
    """transformers fills what a checkpoint lacks with random numbers and only warns. What it ties or may go without is no lack."""
    missing, foreign = sorted(found["missing_keys"]), sorted(found["unexpected_keys"])
    mismatched = [f"{name} {list(there)} for {list(wanted)}" for name, there, wanted in sorted(found["mismatched_keys"])]
    if not missing and not mismatched:
        return
    lists = {"missing": missing, "of another shape": mismatched, "without a place in it": foreign}
    parts = [f"{len(names)} {kind} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})" for kind, names in lists.items() if names]
    raise RegrowError(
        f"{what}: its weights do not fill the {architecture} that its config.json describes. Tensors: {'; '.join(parts)}.",
        "config.json and the safetensors files must come from one model, under the names that transformers saves.",
    )

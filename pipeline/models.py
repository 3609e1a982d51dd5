"""Opens a causal language model from a local folder. Nothing here reaches the network or runs code that comes with a model."""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline.errors import RegrowError

if TYPE_CHECKING:
    import torch

# While they are imported, torchao warns of every kernel library for hardware that is not there, and torch of torchao's enums;
# the others report every default they take.
_TALKATIVE = ("torchao", "torch.utils._pytree", "transformers", "peft", "accelerate", "huggingface_hub", "datasets", "bitsandbytes")


_JUDGES = ("ForSequenceClassification", "ForTokenClassification")


def judges(folder: Path) -> str | None:
    """The class of the model in ``folder`` if it judges text, and writes none: a reward model, or one that judges steps."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8")) if (folder / "config.json").is_file() else {}
    return next((name for name in config.get("architectures") or [] if name.endswith(_JUDGES)), None)


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


def load_causal_lm(folder: Path, *, dtype: torch.dtype | None = None, attn_implementation: str | None = "sdpa", **settings: Any) -> Any:
    """The model in ``folder`` (a plain Hugging Face directory), on the CPU if nothing else is said, and in evaluation mode.

    Args:
        folder: ``config.json`` and safetensors files.
        dtype: of the weights; float32 when not given.
        attn_implementation: a kernel by its name in transformers; None takes sdpa where the architecture has it, else eager.
        settings: further keywords of transformers' ``from_pretrained``.

    Raises:
        RegrowError: the folder holds no model that transformers can open, weights that do not fill the model, or a model that
            judges text.
    """
    import torch

    what = f"The model in {folder}"
    if (judge := judges(folder)) is not None:
        # With tied embeddings it would open, without the head that it was trained for.
        raise RegrowError(f"{what} is a {judge}, which judges text and writes none.", "Name a causal language model.")
    numbers = torch.float32 if dtype is None else dtype
    return _open(folder, what, attn_implementation=attn_implementation, dtype=numbers, **settings)


def load_judge(
    folder: Path, kind: Literal["SequenceClassification", "TokenClassification"], labels: int, *, dtype: torch.dtype, **settings: Any
) -> Any:
    """A causal language model in ``folder`` as one that judges: its output head gives way to one with ``labels`` outputs.

    That head is random (seed torch before) unless the folder has one that fits.

    Args:
        kind: SequenceClassification judges a whole text by its last token, TokenClassification each token.
        settings: further keywords of transformers' ``from_pretrained``.

    Raises:
        RegrowError: as :func:`load_causal_lm`.
    """
    return _open(folder, f"The model in {folder}", dtype=dtype, kind=kind, num_labels=labels, **settings)


def check_weights_fit(folder: Path, what: str) -> None:
    """Go through the loading of the model in ``folder`` without memory for its weights: names and shapes alone.

    Raises:
        RegrowError: :func:`load_causal_lm` would refuse it. ``what`` is what the message calls the model.
    """
    _open(folder, what, attn_implementation=None, device_map={"": "meta"})


def _open(folder: Path, what: str, *, attn_implementation: str | None, kind: str = "CausalLM", **settings: Any) -> Any:
    quiet_libraries()
    import transformers

    opens: Any = getattr(transformers, f"AutoModelFor{kind}")
    try:
        loaded: Any = opens.from_pretrained(
            folder,
            attn_implementation=attn_implementation,
            local_files_only=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # they are refused below, by name
            output_loading_info=True,
            **settings,
        )
    except (OSError, ValueError, RuntimeError, TypeError, AttributeError, LookupError, ArithmeticError, AssertionError) as error:
        # A config.json may hold anything, and each class of models fails in its own way on what it does not expect.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RegrowError(
            f"{what} cannot be opened with attn_implementation {attn_implementation!r}: {reason}",
            "It must be a causal language model of a type that transformers knows, with config.json and safetensors weights.",
        ) from error
    model, found = loaded
    if kind != "CausalLM":  # the head that judges is new
        found = found | {"missing_keys": [name for name in found["missing_keys"] if name.startswith(f"{model.base_model_prefix}.")]}
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

"""The model that is trained: the base model, or a LoRA adapter on it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from transformers import GenerationConfig, set_seed

from pipeline.errors import RegrowError
from pipeline.models import load_causal_lm
from pipeline.options.views import TrainOptions
from stages.train.embeddings import fit_embeddings


def build_model(base: Path, options: TrainOptions, largest_id: int = 0, tokenizer: Mapping[str, Any] = MappingProxyType({})) -> Any:
    """The model in ``base``, fp32, under a new adapter if the options ask for one. Seeds the initialisation.

    ``tokenizer`` is what its manifest says, see :func:`stages.train.embeddings.fit_embeddings`.

    Raises:
        RegrowError: it has no embedding for ``largest_id``, cannot be opened, or cannot take new tokens or the adapter.
    """
    set_seed(options.seed)
    model = load_causal_lm(base, attn_implementation=options.attn_implementation)
    fit_embeddings(model, options, tokenizer)
    _check_vocabulary(model, largest_id)  # before an adapter may wrap the embeddings
    # transformers validates this one at every save and refuses some that published models have; ours is copied instead.
    model.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
    return model if options.adapter is None else _add_adapter(model, options)


def _check_vocabulary(model: Any, largest_id: int) -> None:
    vocabulary = model.get_input_embeddings().num_embeddings
    if largest_id >= vocabulary:
        raise RegrowError(
            f"data/tokens holds token id {largest_id}, and base_model has embeddings for ids 0 to {vocabulary - 1}.",
            "base_model and tokenizer_config must belong together.",
        )


def _add_adapter(model: Any, options: TrainOptions) -> Any:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=options.lora_r,
        lora_alpha=options.lora_alpha,
        lora_dropout=options.lora_dropout,
        target_modules=_target_modules(model, options),
        use_dora=options.peft_use_dora,
        use_rslora=options.peft_use_rslora,
    )
    try:
        return get_peft_model(model, config)
    except (ValueError, re.error) as error:
        reason = str(error).splitlines()[0]
        raise RegrowError(
            f"The adapter cannot be added to this {type(model).__name__}: {reason} "
            f"(lora_target_modules: {options.lora_target_modules!r}, lora_target_linear: {options.lora_target_linear})",
            f"Name some of its linear modules ({', '.join(_linear_names(model))}) or set lora_target_linear: true.",
        ) from error
    except (RuntimeError, MemoryError) as error:  # torch's allocators raise them
        reason = (str(error).strip() or "out of memory").splitlines()[0]
        raise RegrowError(
            f"An adapter of lora_r {options.lora_r} cannot be made for this {type(model).__name__}: {reason}",
            "Where memory is what lacks, set a smaller lora_r (8 to 256 are usual) or name fewer lora_target_modules.",
        ) from error


def _check_named(model: Any, modules: Sequence[str]) -> None:
    """PEFT refuses a list of which no name matches; a single name that matches nothing it leaves out without a word."""
    names = [name for name, _ in model.named_modules()]
    absent = [module for module in modules if not any(f".{name}".endswith(f".{module}") for name in names)]
    if absent:
        raise RegrowError(
            f"lora_target_modules: this {type(model).__name__} has no module {', '.join(map(repr, absent))}.",
            f"Its linear modules are {', '.join(_linear_names(model))}.",
        )


def _target_modules(model: Any, options: TrainOptions) -> str | list[str] | None:
    """Names, a regular expression, or None for PEFT's choice for the architecture."""
    if isinstance(options.lora_target_modules, list):
        _check_named(model, options.lora_target_modules)
    if not options.lora_target_linear:
        return options.lora_target_modules
    if isinstance(options.lora_target_modules, str) and options.lora_target_modules != "all-linear":
        raise RegrowError(
            f"lora_target_linear: true and the regular expression lora_target_modules: {options.lora_target_modules!r} cannot be combined.",
            "Set lora_target_linear: false, or give lora_target_modules as a list of names.",
        )
    named = options.lora_target_modules if isinstance(options.lora_target_modules, list) else []
    return sorted({*named, *_linear_names(model)}) if named else "all-linear"


def _linear_names(model: Any) -> list[str]:
    """Last parts of the names of all linear modules except the output head."""
    head = model.get_output_embeddings()
    linear = (name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear) and module is not head)
    return sorted({name.rpartition(".")[2] for name in linear})

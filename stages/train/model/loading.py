"""Opens the base model as the options ask: its class, its numbers, its place, its attention."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import RegrowError
from pipeline.models import load_causal_lm, load_judge
from pipeline.options.views import TrainOptions
from stages.train.attention.kernels import choose_attention, loaded_with
from stages.train.model.few_bits import check_head, keep_trainable, quantisation
from stages.train.model.precision import weights_dtype


def load_base(base: Path, options: TrainOptions) -> Any:
    """The model in ``base``.

    Raises:
        RegrowError: it cannot be opened so.
    """
    _check_class(base, options)
    _check_judge(base, options)
    settings = (options.overrides_of_model_kwargs or {}) | quantisation(options) | _placement(options)
    settings |= {"dtype": weights_dtype(options), "attn_implementation": loaded_with(options)}
    model = _load_judge(base, options, settings) if judges(options) else load_causal_lm(base, **settings)
    _check_experts(model, options)
    _check_recomputation(model, options)
    _check_placement(model)
    check_head(model)
    keep_trainable(model)
    choose_attention(model, options)
    if options.gradient_checkpointing and (options.gradient_checkpointing_kwargs or {}).get("use_reentrant"):
        model.enable_input_require_grads()  # reentrant recomputation passes gradients on only where its inputs need some
    return model


def judges(options: TrainOptions) -> bool:
    """Whether the model is to judge answers, and not to write them."""
    return options.reward_model or options.process_reward_model


def _load_judge(base: Path, options: TrainOptions, settings: dict[str, Any]) -> Any:
    """A score for a text, or for every token whether the step that ends there is wrong (0) or right (1)."""
    if options.reward_model:
        return load_judge(base, "SequenceClassification", 1, **settings)
    return load_judge(base, "TokenClassification", 2, **settings)


def _check_class(base: Path, options: TrainOptions) -> None:
    """transformers has one class of causal language models for each type of config; another one would not fit its weights."""
    name = options.type_of_model
    kind = "SequenceClassification" if options.reward_model else "TokenClassification" if options.process_reward_model else "CausalLM"
    if name in (None, "AutoModelForCausalLM", f"AutoModelFor{kind}"):
        return
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

    config = AutoConfig.from_pretrained(base, local_files_only=True, trust_remote_code=False)
    found: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    expected = None if found is None else found.__name__
    if name != expected:
        raise RegrowError(
            f"type_of_model: {name}, but the causal language model of type {config.model_type} is {expected}.",
            f"Write type_of_model: {expected}, or leave it out.",
        )


def _check_judge(base: Path, options: TrainOptions) -> None:
    if not judges(options):
        return
    from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING, AutoConfig

    config = AutoConfig.from_pretrained(base, local_files_only=True, trust_remote_code=False)
    key, known, judged = (
        ("reward_model", MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, "texts")
        if options.reward_model
        else ("process_reward_model", MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING, "tokens")
    )
    if type(config) not in known:
        raise RegrowError(
            f"{key}: true, and transformers has no class for models of type {config.model_type} that judge {judged}.",
            "Name a base_model of another type, such as llama, mistral, qwen2 or qwen3.",
        )


def _check_experts(model: Any, options: TrainOptions) -> None:
    if options.overrides_of_model_kwargs and not any(name.endswith(".experts") for name, _ in model.named_modules()):
        raise RegrowError(
            f"overrides_of_model_kwargs: {options.overrides_of_model_kwargs} is about experts, and {type(model).__name__} has none.",
            "Remove it.",
        )


def _check_recomputation(model: Any, options: TrainOptions) -> None:
    if options.gradient_checkpointing and not model.supports_gradient_checkpointing:
        raise RegrowError(
            f"gradient_checkpointing: transformers cannot recompute the activations of {type(model).__name__}.",
            "Set gradient_checkpointing: false; a smaller micro_batch_size and chunked_cross_entropy: true save memory too.",
        )


def _placement(options: TrainOptions) -> dict[str, Any]:
    """Where the weights go. Nothing said: to the CPU, from where the Trainer moves them to the device of this process."""
    asked = [name for name in ("device_map", "max_memory", "gpu_memory_limit") if getattr(options, name) is not None]
    if not asked:
        return {}
    if not torch.cuda.is_available():
        raise RegrowError(f"{asked[0]} needs a CUDA device, and this machine has none.", f"Remove {asked[0]}; there is one place here.")
    memory = dict(options.max_memory or _limits(options.gpu_memory_limit))
    return {"device_map": options.device_map or "auto"} | ({"max_memory": memory} if memory else {})


def _limits(limit: int | str | None) -> Iterator[tuple[int, str]]:
    for number in range(torch.cuda.device_count() if limit is not None else 0):
        yield number, f"{limit}GiB" if isinstance(limit, int) or str(limit).isdecimal() else str(limit)


def _check_placement(model: Any) -> None:
    """Weights that were left in RAM or on disk come to the GPU for each product, and no gradient comes back to them."""
    outside = sorted(name for name, place in getattr(model, "hf_device_map", {}).items() if place in ("cpu", "disk", "meta"))
    if outside and torch.cuda.is_available():
        raise RegrowError(
            f"device_map leaves {len(outside)} parts of the model ({', '.join(outside[:3])}) without a GPU.",
            "Raise gpu_memory_limit or max_memory, hold the model in fewer bits (load_in_4bit), or use more GPUs.",
        )

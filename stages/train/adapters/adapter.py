"""A LoRA adapter on the base model: a new one, or one to go on from."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

from pipeline.errors import RegrowError
from pipeline.options.views import TrainOptions
from stages.train.adapters.beginning import (
    Batches,
    begin_after,
    begin_before,
    begin_plainly,
    initialisation,
    lora_layers,
    remember_start,
    shifts_base,
    stored_transposed,
)
from stages.train.adapters.targets import (
    adapted_modules,
    check_adapted,
    check_ends,
    check_names,
    linear_names,
    target_modules,
    target_parameters,
)
from stages.train.model.few_bits import check_held


def add_adapter(model: Any, options: TrainOptions, batches: Batches | None = None) -> Any:
    """``model`` under the adapter that the options ask for.

    Args:
        batches: see :mod:`stages.train.adapters.beginning`; some initialisations look at the data.

    Raises:
        RegrowError: the adapter does not fit the model.
    """
    check_held(model, options)
    model = _ready_for_few_bits(model)
    if options.lora_model_dir is not None:
        return _continued(model, options, Path(options.lora_model_dir).expanduser())
    check_names(model, options)
    _check_replication(model, options)
    config = _lora_config(model, options)
    check_ends(model, config, options)
    begin_before(model, config, options, batches)
    adapted = _attach(model, config, options)
    _check_stored(adapted, options)
    check_adapted(adapted, options)
    _refuse_shifting_what_is_shared(adapted, options)
    begin_after(adapted, options, batches)
    remember_start(adapted, options)
    return adapted


def _ready_for_few_bits(model: Any) -> Any:
    """Freezes, and keeps what is not quantised in fp32. Recomputing activations is the Trainer's business."""
    from peft import prepare_model_for_kbit_training

    if getattr(model, "is_loaded_in_4bit", False) or getattr(model, "is_loaded_in_8bit", False):
        return prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)  # type: ignore[no-untyped-call]
    return model


def _lora_config(model: Any, options: TrainOptions) -> Any:
    from peft import LoraConfig

    try:
        return LoraConfig(
            task_type="SEQ_CLS" if options.reward_model else "TOKEN_CLS" if options.process_reward_model else "CAUSAL_LM",
            r=options.lora_r,
            lora_alpha=options.lora_alpha,
            lora_dropout=options.lora_dropout,
            target_modules=target_modules(model, options),
            target_parameters=target_parameters(model, options),
            exclude_modules=options.lora_exclude_modules or None,
            modules_to_save=options.lora_modules_to_save or None,
            fan_in_fan_out=bool(options.lora_fan_in_fan_out),
            rank_pattern=options.lora_rank_pattern or {},
            alpha_pattern=options.lora_alpha_pattern or {},
            layers_to_transform=options.peft_layers_to_transform or None,
            layers_pattern=options.peft_layers_pattern or None,
            layer_replication=options.peft_layer_replication or None,
            trainable_token_indices=options.peft_trainable_token_indices or None,
            ensure_weight_tying=options.peft_ensure_weight_tying,
            use_dora=options.peft_use_dora,
            use_rslora=options.peft_use_rslora,
            **begin_plainly(options),
        )
    except (ValueError, TypeError) as error:
        raise _unfit(model, options, error, linear_names(model)) from error


def _attach(model: Any, config: Any, options: TrainOptions) -> Any:
    from peft import get_peft_model

    linear = linear_names(model)  # an adapter that fails half-way leaves other names behind
    try:
        return get_peft_model(model, config, autocast_adapter_dtype=options.peft_autocast_adapter_dtype)
    except (ValueError, TypeError, AttributeError, IndexError, re.error) as error:
        raise _unfit(model, options, error, linear) from error
    except (RuntimeError, MemoryError) as error:  # torch's allocators raise them
        reason = (str(error).strip() or "out of memory").splitlines()[0]
        raise RegrowError(
            f"An adapter of lora_r {options.lora_r} cannot be made for this {type(model).__name__}: {reason}",
            "Where memory is what lacks, set a smaller lora_r (8 to 256 are usual) or name fewer lora_target_modules.",
        ) from error


def _unfit(model: Any, options: TrainOptions, error: Exception, linear: list[str]) -> RegrowError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return RegrowError(
        f"The adapter cannot be added to this {type(model).__name__}: {reason} "
        f"(lora_target_modules: {options.lora_target_modules!r}, lora_target_linear: {options.lora_target_linear})",
        f"Name some of its linear modules ({', '.join(linear)}) or set lora_target_linear: true.",
    )


def _check_replication(model: Any, options: TrainOptions) -> None:
    layers = int(model.config.num_hidden_layers)
    if any(end > layers for _, end in options.peft_layer_replication or []):
        raise RegrowError(
            f"peft_layer_replication: {[list(span) for span in options.peft_layer_replication or []]} names layers beyond the last.",
            f"This model has layers 0 to {layers - 1}; ranges are [from, to), so the largest `to` is {layers}.",
        )


def _check_stored(model: Any, options: TrainOptions) -> None:
    """PEFT corrects this setting by what it finds, and only warns; what it finds last decides for all layers."""
    kinds = {isinstance(layer.get_base_layer(), Conv1D): name.removeprefix("base_model.model.") for name, layer in lora_layers(model)}
    if len(kinds) == 2:
        raise RegrowError(
            f"{kinds[True]} stores its weight as [in, out] and {kinds[False]} as [out, in], which one adapter's configuration cannot say.",
            f"Leave {kinds[False]} out of lora_target_modules; lora_modules_to_save can train it whole.",
        )
    found = stored_transposed(model)
    if options.lora_fan_in_fan_out is not None and options.lora_fan_in_fan_out != found:
        raise RegrowError(
            f"lora_fan_in_fan_out: {str(options.lora_fan_in_fan_out).lower()}, but the adapted layers of this "
            f"{type(model.get_base_model()).__name__} store weights as {'[in, out]' if found else '[out, in]'}.",
            "Remove lora_fan_in_fan_out: it follows from the layers.",
        )


def _refuse_shifting_what_is_shared(model: Any, options: TrainOptions) -> None:
    """What is taken out of a tied weight at one end would be missing at the other; out of few bits, it is rounded."""
    from peft.tuners.lora import LoraLayer

    if not shifts_base(options) and not options.relora:
        return
    base = model.get_base_model()
    what = "relora" if options.relora else f"peft_init_lora_weights: {initialisation(options)}"
    if any(layer.get_base_layer().weight.dtype != torch.float32 for _, layer in lora_layers(model)):
        raise RegrowError(f"{what} changes the base weights, which must be float32 to take it exactly.", "Hold the base model in float32.")
    if not getattr(base.config, "tie_word_embeddings", False):
        return
    ends = {id(base.get_input_embeddings()), id(base.get_output_embeddings())}
    if any(id(module) in ends for module in model.modules() if isinstance(module, LoraLayer)):
        raise RegrowError(
            f"{what} changes the base weights, and this model uses one weight for the embedding and the output head.",
            "Leave embed_tokens and lm_head out of lora_target_modules, or name them in lora_modules_to_save.",
        )


def _continued(model: Any, options: TrainOptions, folder: Path) -> Any:
    from peft import PeftModel
    from peft.utils import get_peft_model_state_dict
    from safetensors import SafetensorError, safe_open

    linear = set(linear_names(model))
    where: dict[str, Any] = {"torch_device": "cpu"} if options.lora_on_cpu else {}
    try:
        adapted: Any = PeftModel.from_pretrained(
            model, str(folder), is_trainable=True, autocast_adapter_dtype=options.peft_autocast_adapter_dtype, **where
        )
        with safe_open(str(folder / "adapter_model.safetensors"), framework="pt") as file:
            stored = set(file.keys())
    except (ValueError, TypeError, OSError, RuntimeError, KeyError, SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RegrowError(
            f"lora_model_dir: the adapter in {folder} does not fit base_model: {reason}", "Name an adapter that was made for this model."
        ) from error
    expected = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    possible = expected | set(get_peft_model_state_dict(adapted, save_embedding_layers=True))
    if odd := sorted((expected - stored) | (stored - possible)):
        raise RegrowError(
            f"lora_model_dir: the adapter in {folder} and its configuration disagree about {odd[0]} ({len(odd)} such tensors).",
            "Name an adapter that was made for this model.",
        )
    adapts = adapted_modules(adapted)  # configurations of small models name each in full
    if (options.lora_target_linear or options.lora_target_modules == "all-linear") and adapts != linear:
        raise RegrowError(
            f"lora_target_linear: the adapter in {folder} adapts {', '.join(sorted(adapts))}, and the linear modules of base_model are "
            f"{', '.join(sorted(linear))}.",
            "Remove lora_target_linear (or lora_target_modules: all-linear): the adapter's own configuration decides.",
        )
    return adapted

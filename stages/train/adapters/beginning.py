"""How an adapter begins. Most ways leave the base model alone; some take the adapter's first product out of its weights.

PiSSA (arXiv 2404.02948), OLoRA (2406.01775), CorDA (2406.05223) and LoRA-GA (2407.05000) train ``W - s B0 A0 + s B A``. What is
published is the plain LoRA adapter ``s [B, -B0] [A; A0]`` of twice the rank on the base model as it came, which is the same sum.
LoftQ (2310.08659) rounds the base weights to few bits, which no adapter can hold: a model trained so is published whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from pipeline.errors import RegrowError
from pipeline.options.views import TrainOptions
from stages.train.adapters.normal_float import loftq
from stages.train.data.bins import IGNORED, next_labels

Batches = Callable[[], Iterator[Mapping[str, Tensor]]]
"""Batches of one bin, from the first on and always the same ones: model inputs and ``labels`` (not shifted, -100 where untrained)."""

Factors = Mapping[str, tuple[Tensor, Tensor]]
"""Module name in the adapted model → its ``A`` ``[rank, in]`` and ``B`` ``[out, rank]`` at the beginning."""

_CALIBRATION = 32
"""Bins that an initialisation looks at. EVA asks for more where they hold fewer trained tokens than it needs components."""


def initialisation(options: TrainOptions) -> str:
    """Its name; ``True`` and ``False`` for PEFT's own."""
    loftq_settings = options.peft is not None and options.peft.loftq_config is not None
    return "loftq" if loftq_settings else str(options.peft_init_lora_weights)


def shifts_base(options: TrainOptions) -> bool:
    """Whether the base model's weights are changed before the first step."""
    return options.adapter is not None and initialisation(options).startswith(("pissa", "olora", "corda", "lora_ga", "loftq"))


def begin_plainly(options: TrainOptions) -> dict[str, Any]:
    """The arguments of PEFT's LoraConfig that say how to begin."""
    from peft.tuners.lora.config import CordaConfig, EvaConfig, LoraGAConfig

    name = initialisation(options)
    if name == "loftq":
        return {"init_lora_weights": True}  # PEFT's own needs bitsandbytes on a GPU
    settings = {"eva": ("eva_config", EvaConfig), "corda": ("corda_config", CordaConfig), "lora_ga": ("lora_ga_config", LoraGAConfig)}
    given = {settings[name][0]: settings[name][1]()} if name in settings else {}
    return {"init_lora_weights": {"True": True, "False": False}.get(name, name), **given}


def begin_before(model: Any, config: Any, options: TrainOptions, batches: Batches | None) -> None:
    """CorDA and LoRA-GA look at the model on the data before the adapter is there.

    Raises:
        RegrowError: a weight of which the beginning cannot take its part.
    """
    name = initialisation(options)
    if shifts_base(options):
        _resolve_targets(model, config)
        _check_weights(model, config, name)
    if name == "corda":
        from peft.tuners.lora.corda import preprocess_corda

        preprocess_corda(model, config, run_model=lambda: _run(model, _some(batches, name)))
    elif name == "lora_ga":
        from peft.tuners.lora.loraga import preprocess_loraga

        preprocess_loraga(model, config, lambda: _learn(model, _some(batches, name)))


def begin_after(model: Any, options: TrainOptions, batches: Batches | None) -> None:
    """EVA (arXiv 2410.07170) looks at the inputs of the adapted layers; LoftQ at their weights."""
    name = initialisation(options)
    if name == "loftq":
        bits = options.peft.loftq_config.loftq_bits if options.peft and options.peft.loftq_config else 4
        for _, layer in lora_layers(model):
            _begin_with_loftq(layer, bits)
    elif name == "eva":
        from peft.tuners.lora.eva import initialize_lora_eva_weights

        initialize_lora_eva_weights(
            model, _enough_for_eva(model, batches), gather_distributed_inputs=False, show_progress_bar=False, forward_fn=_forward
        )


def remember_start(model: Any, options: TrainOptions) -> None:
    """Keep, with each layer, the factors that its base weight now lacks. No part of a checkpoint: a resumed run finds the same."""
    if shifts_base(options) and initialisation(options) != "loftq":
        for _, layer in lora_layers(model):
            layer.started = (_weight(layer.lora_A), _weight(layer.lora_B))


def starting_factors(model: Any) -> Factors:
    """What the base weights lack: nothing, unless :func:`remember_start` kept something."""
    return {name: layer.started for name, layer in lora_layers(model) if hasattr(layer, "started")}


def without_start(tensors: Mapping[str, Tensor], config: Mapping[str, Any], started: Factors) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The same adapter for the base model as it came: ``[A; A0]`` and ``[B, -B0]``, twice the rank at the same scale."""
    doubled = dict(tensors)
    for name, (a, b) in started.items():
        first, second = f"{name}.lora_A.weight", f"{name}.lora_B.weight"
        doubled[first] = torch.cat([tensors[first], a.to(tensors[first])], dim=0)
        doubled[second] = torch.cat([tensors[second], -b.to(tensors[second])], dim=1)
    growth = math.sqrt(2) if config["use_rslora"] else 2
    return doubled, {
        **config,
        "r": 2 * config["r"],
        "lora_alpha": growth * config["lora_alpha"],
        "rank_pattern": {key: 2 * rank for key, rank in config["rank_pattern"].items()},
        "alpha_pattern": {key: growth * alpha for key, alpha in config["alpha_pattern"].items()},
    }


def lora_layers(model: Any) -> list[tuple[str, Any]]:
    """Modules with a pair of matrices, by their names in the adapted model."""
    from peft.tuners.lora import LoraLayer

    return [(name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer) and len(module.lora_A)]


def stored_transposed(model: Any) -> bool:
    """Whether the base stores what is adapted as ``[in, out]``; bitsandbytes turns such weights round when it takes them."""
    sources = (getattr(layer.get_base_layer(), "source_cls", None) for _, layer in lora_layers(model))
    return bool(model.peft_config["default"].fan_in_fan_out) or Conv1D in sources


def _weight(factor: Any) -> Tensor:
    weight: Tensor = factor["default"].weight.detach().clone()
    return weight


def _begin_with_loftq(layer: Any, bits: int) -> None:
    weight = layer.get_base_layer().weight
    stored = weight.data.T if layer.fan_in_fan_out else weight.data
    rounded, a, b = loftq(stored.float(), bits, layer.r["default"])
    scale = layer.scaling["default"]
    layer.lora_A["default"].weight.data.copy_(a)
    layer.lora_B["default"].weight.data.copy_(b / scale)
    weight.data.copy_(rounded.T if layer.fan_in_fan_out else rounded)


def _resolve_targets(model: Any, config: Any) -> None:
    """PEFT's choice and ``all-linear``, which it otherwise makes only when it adds the adapter."""
    from peft.tuners.lora import LoraModel
    from peft.tuners.tuners_utils import _maybe_include_all_linear_layers

    if config.target_modules is None:
        config.target_modules = set(LoraModel.target_module_mapping.get(model.config.model_type) or ())
    _maybe_include_all_linear_layers(config, model)


def _check_weights(model: Any, config: Any, name: str) -> None:
    """PEFT makes a smaller adapter than it says where a weight has fewer directions, and OLoRA turns transposed weights the wrong way."""
    from peft.tuners.tuners_utils import check_target_module_exists
    from peft.utils.other import get_pattern_key

    share = 2 if name == "lora_ga" else 1  # one half of the directions for each factor
    for key, module in model.named_modules():
        if not isinstance(module, torch.nn.Linear | Conv1D) or not check_target_module_exists(config, key):
            continue
        if name == "olora" and isinstance(module, Conv1D):
            raise RegrowError(f"peft_init_lora_weights: olora, but {key} stores its weight transposed.", "Write pissa or true.")
        rank = config.rank_pattern.get(get_pattern_key(config.rank_pattern.keys(), key), config.r)
        if share * rank > (most := min(module.weight.shape)):
            raise RegrowError(
                f"peft_init_lora_weights: {name} with rank {rank} takes {share * rank} directions of each weight, and {key} has {most}.",
                f"Set lora_r: {most // share} or less, or a smaller lora_rank_pattern for that module; or write another initialisation.",
            )


def _some(batches: Batches | None, name: str, count: int = _CALIBRATION) -> list[Mapping[str, Tensor]]:
    if batches is None:
        raise RegrowError(f"peft_init_lora_weights: {name} needs data to look at.", "Write another initialisation.")
    return [batch for _, batch in zip(range(count), batches(), strict=False)]


def _run(model: Any, batches: list[Mapping[str, Tensor]]) -> None:
    with torch.no_grad():
        for batch in batches:
            _forward(model, batch)


def _forward(model: Any, batch: Mapping[str, Tensor]) -> Any:
    inputs = {name: value.to(model.device) for name, value in batch.items() if name in ("input_ids", "position_ids")}
    return model(**inputs, use_cache=False)


def _learn(model: Any, batches: list[Mapping[str, Tensor]]) -> None:
    for batch in batches:
        logits = _forward(model, batch).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), next_labels(batch["labels"]).to(logits.device).flatten())
        torch.autograd.backward(loss)


def _enough_for_eva(model: Any, batches: Batches | None) -> list[Mapping[str, Tensor]]:
    """Batches that each hold as many trained tokens as EVA may want components, which otherwise never settles."""
    config = model.peft_config["default"]
    ranks = [layer.r["default"] for _, layer in lora_layers(model)]
    needed = round(max(ranks) * config.eva_config.rho)
    joined: list[Mapping[str, Tensor]] = []
    held: list[Mapping[str, Tensor]] = []
    for batch in batches() if batches else ():
        held.append(batch)
        if sum(int((item["labels"] != IGNORED).sum()) for item in held) >= needed:
            joined.append(_join(held))
            held = []
        if len(joined) == _CALIBRATION:
            break
    if not joined:
        raise RegrowError(
            f"peft_init_lora_weights: eva finds up to {needed} directions from {needed} trained tokens; the training data has fewer.",
            "Set a smaller lora_r, or write another initialisation.",
        )
    return joined


def _join(batches: list[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Bins behind one another: rows stay apart because positions begin anew."""
    return {name: torch.cat([batch[name] for batch in batches], dim=1) for name in ("input_ids", "position_ids", "labels")}

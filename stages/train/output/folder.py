"""What data/trained holds: weights and configuration in one canonical form, the tokenizer, the log."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file

from pipeline.artifact import MANIFEST
from pipeline.digest import canonical_json
from pipeline.options.views import TrainOptions
from stages.train.adapters.beginning import initialisation, starting_factors, stored_transposed, without_start

BASE = "data/base"
"""What an adapter's configuration names as its base model, on every machine."""


def kind_of(options: TrainOptions) -> Literal["adapter", "full"]:
    """What is published: the whole model where training changed it under an adapter for good, or gave it a head that judges."""
    whole = options.relora or initialisation(options) == "loftq" or options.reward_model or options.process_reward_model
    return "adapter" if options.adapter is not None and not whole else "full"


def write_model(model: Any, options: TrainOptions, base: Path, folder: Path) -> None:
    """The trained model, as :func:`kind_of` says. An adapter that is not published is merged into ``model``."""
    if kind_of(options) == "adapter":
        write_adapter(model, base, folder)
    else:
        write_full(model if options.adapter is None else model.merge_and_unload(), base, folder)


def write_full(model: Any, base: Path, folder: Path) -> None:
    """``config.json`` and safetensors, with the base model's ``generation_config.json`` if it has one."""
    # Training switches the cache off; whoever generates with the result wants it as the base model has it.
    model.config.use_cache = json.loads((base / "config.json").read_text(encoding="utf-8")).get("use_cache", True)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    if (base / "generation_config.json").exists():
        shutil.copyfile(base / "generation_config.json", folder / "generation_config.json")


def write_adapter(model: Any, base: Path, folder: Path) -> None:
    """``adapter_config.json`` and ``adapter_model.safetensors``: plain LoRA on the base model as it came.

    Embeddings are in it where the vocabulary has been resized, for the rows that the base model lacks.
    """
    vocabulary = json.loads((base / "config.json").read_text(encoding="utf-8")).get("vocab_size")
    resized = model.get_input_embeddings().weight.shape[0] != vocabulary
    model.save_pretrained(folder, save_embedding_layers=resized)
    (folder / "README.md").unlink(missing_ok=True)  # a model card to fill in, about nothing that was done here
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    tensors = load_file(folder / "adapter_model.safetensors")
    # Beside a whole module that was trained, PEFT saves embeddings under its own name, as they were, and as they are.
    tensors = {name: tensor for name, tensor in tensors.items() if ".original_module." not in name and ".modules_to_save." not in name}
    if resized:
        tensors = _with_both_ends(tensors, model)
    if started := starting_factors(model):
        tensors, config = without_start(tensors, config, started)
    save_file(dict(sorted(tensors.items())), folder / "adapter_model.safetensors", metadata={"format": "pt"})
    # PEFT keeps module names in sets, which it writes in the order of this process's string hashes.
    config = {key: sorted(value) if key.endswith("_modules") and isinstance(value, list) else value for key, value in config.items()}
    config["fan_in_fan_out"] = stored_transposed(model)
    plain = {"init_lora_weights": True, "eva_config": None, "corda_config": None, "lora_ga_config": None}
    (folder / "adapter_config.json").write_text(canonical_json(config | plain | {"base_model_name_or_path": BASE}), encoding="utf-8")


def _with_both_ends(tensors: dict[str, torch.Tensor], model: Any) -> dict[str, torch.Tensor]:
    """PEFT leaves out a resized end that is not adapted where the other one is."""
    base = model.get_base_model()
    for end in (base.get_input_embeddings(), base.get_output_embeddings()):
        name = next(name for name, module in base.named_modules() if module is end)
        if not any(re.fullmatch(rf"base_model\.model\.{re.escape(name)}(\.token_adapter)?(\.base_layer)?\.weight", key) for key in tensors):
            tensors[f"base_model.model.{name}.weight"] = end.weight.detach().cpu().clone()
    return tensors


def copy_tokenizer(tokenizer: Path, folder: Path) -> None:
    """The tokenizer's files beside the weights, byte for byte."""
    for path in sorted(tokenizer.iterdir()):
        if path.name != MANIFEST:
            shutil.copyfile(path, folder / path.name)

"""What data/trained holds: weights and configuration in one canonical form, the tokenizer, the log."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from pipeline.artifact import MANIFEST
from pipeline.digest import canonical_json

BASE = "data/base"
"""What an adapter's configuration names as its base model, on every machine."""


def write_full(model: Any, base: Path, folder: Path) -> None:
    """``config.json`` and safetensors, with the base model's ``generation_config.json`` if it has one."""
    # Training switches the cache off; whoever generates with the result wants it as the base model has it.
    model.config.use_cache = json.loads((base / "config.json").read_text(encoding="utf-8")).get("use_cache", True)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    if (base / "generation_config.json").exists():
        shutil.copyfile(base / "generation_config.json", folder / "generation_config.json")


def write_adapter(model: Any, folder: Path) -> None:
    """``adapter_config.json`` and ``adapter_model.safetensors``."""
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)  # a model card to fill in, about nothing that was done here
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    # PEFT keeps module names in sets, which it writes in the order of this process's string hashes.
    config = {key: sorted(value) if key.endswith("_modules") and isinstance(value, list) else value for key, value in config.items()}
    path.write_text(canonical_json(config | {"base_model_name_or_path": BASE}), encoding="utf-8")


def copy_tokenizer(tokenizer: Path, folder: Path) -> None:
    """The tokenizer's files beside the weights, byte for byte."""
    for path in sorted(tokenizer.iterdir()):
        if path.name != MANIFEST:
            shutil.copyfile(path, folder / path.name)

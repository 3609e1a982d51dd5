"""What a model directory holds beside its weights: config.json, generation_config.json, the tokenizer, the model's own code."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copyfile
from typing import Any

from pipeline.digest import canonical_json
from pipeline.errors import RegrowError

MODEL_FILES = ("generation_config.json", "*.py")
TOKENIZER_FILES = (
    "tokenizer*.json",
    "tokenizer.model*",
    "*.tiktoken",
    "*.spm",
    "spiece.model",
    "sentencepiece*.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "chat_template*",
    "additional_chat_templates/*.jinja",
)


def copy_files(source: Path, destination: Path, patterns: tuple[str, ...]) -> None:
    """Copy what matches, bytes only, into the same place under ``destination``."""
    for path in sorted({path for pattern in patterns for path in source.glob(pattern)}):
        target = destination / path.relative_to(source)
        target.parent.mkdir(exist_ok=True)
        copyfile(path, target)


def read_model_config(folder: Path) -> dict[str, Any]:
    """config.json of a model in full precision.

    Raises:
        RegrowError: no readable file, or quantized weights.
    """
    path = folder / "config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise RegrowError(f"{path} cannot be read: {error}.") from None
    if "quantization_config" in config:
        raise RegrowError(f"{path} says the weights are quantized; they cannot be merged exactly.", "Use the base model in full precision.")
    return config


def write_model_config(config: dict[str, Any], folder: Path, dtype: str, *, untied: bool) -> None:
    """config.json with the dtype that the weights really have; ``untied`` says the output head is stored now."""
    written = {key: value for key, value in config.items() if key != "torch_dtype"} | {"dtype": dtype}
    if untied:
        written["tie_word_embeddings"] = False
    (folder / "config.json").write_text(canonical_json(written), encoding="utf-8")

"""Which model `regrow chat` talks to, and how it is opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.artifact import open_artifact
from pipeline.errors import RegrowError
from pipeline.model_folder import gguf_file, open_model
from pipeline.models import judges, load_causal_lm, quiet_libraries


def open_chat_model(data: Path, model: Path | None, *, adapter: bool, gguf: bool) -> tuple[Any, Any]:
    """The model and its tokenizer.

    Args:
        data: the project's artifacts; the tokenizer is theirs, unless ``model`` is a folder with one of its own.
        model: a folder or GGUF file; default data/merged.
        adapter: data/base with the adapter of data/trained, as it was trained, without a merge.
        gguf: the GGUF file of data/quantized.

    Raises:
        RegrowError: more than one of the three is asked for, or what is asked for is not there.
    """
    if sum((model is not None, adapter, gguf)) > 1:
        raise RegrowError("--model, --adapter and --gguf each name a model.", "Give one of them.")
    quiet_libraries()
    if adapter:
        return _with_adapter(data), _open_tokenizer(data / "tokenizer")
    path = _find_gguf(data) if gguf else model if model is not None else data / "merged"
    if not path.exists():
        raise RegrowError(f"{path} is not there.", "Run `dvc repro`, or name another model with --model.")
    own = path / "tokenizer_config.json"
    if (judge := judges(path)) is not None:
        raise RegrowError(f"{path} is a {judge}, which judges text and writes none.", "Name a causal language model with --model.")
    return open_model(path), _open_tokenizer(path if model is not None and own.is_file() else data / "tokenizer")


def _with_adapter(data: Path) -> Any:
    folder = data / "trained"
    if open_artifact(folder, verify=False).content.get("kind") == "full" or not (folder / "adapter_config.json").is_file():
        raise RegrowError(f"{folder} holds all weights and no adapter.", "Leave --adapter out: data/merged is the same model.")
    from peft import PeftModel

    model = PeftModel.from_pretrained(load_causal_lm(data / "base"), folder)
    return model.eval()


def _find_gguf(data: Path) -> Path:
    found = [file for folder in sorted((data / "quantized").glob("*/")) if (file := gguf_file(folder)) is not None]
    if not found:
        raise RegrowError(f"{data / 'quantized'} holds no GGUF file.", "Add q8_0 to quantize, or name a file with --model.")
    return found[0]


def _open_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    if not (folder / "tokenizer_config.json").is_file():
        raise RegrowError(f"{folder} holds no tokenizer.", "Run `dvc repro fetch`, or name a model's folder that has one.")
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)

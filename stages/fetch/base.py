"""The base model into ``data/base``: config.json, generation_config.json where there is one, safetensors. No tokenizer, no pickles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from shutil import copyfile
from types import MappingProxyType
from typing import Any

from pipeline.artifact import Draft
from pipeline.errors import RegrowError
from pipeline.json_object import read_object
from pipeline.options.views import FetchOptions
from stages.fetch.config import open_config, write_config
from stages.fetch.locate import Located
from stages.fetch.model_files import CONFIGS, WEIGHTS, gguf_of, matching
from stages.fetch.random_weights import write_random_weights


def write_base(options: FetchOptions, model: Located, config_source: Located | None, pad_token_id: int | None, base: Draft) -> int:
    """Copy the model as it is, or convert its GGUF file, then change its config as the options ask; returns the bytes written.

    ``pad_token_id`` goes into the config of a converted model, so that the embedding that stays untrained is the padding's;
    None leaves none untrained.
    """
    gguf = gguf_of(model)
    if gguf is not None:
        from stages.fetch.gguf_model import convert_model

        convert_model(model.root / gguf, base.path, pad_token_id, model.wanted)
    else:
        _copy(model, CONFIGS, base.path)
    is_changed = write_config(options, config_source, base.path / "config.json")
    open_config(base.path / "config.json", f"{model.wanted.option} {model.wanted.text!r}")
    if options.reinit_weights:
        write_random_weights(base.path)
    else:
        _copy(model, WEIGHTS, base.path)
        check_weights(base.path, model)
        if gguf is None or is_changed:
            _check_fit(base.path, model)
    config = _read_json(base.path / "config.json", model)
    base.describe(model_type=config.get("model_type"), source=public_name(model), revision=model.revision)
    return sum(file.stat().st_size for file in base.path.iterdir())


def public_name(model: Located) -> str | None:
    """What params.yaml calls a model that others can fetch too. Where a folder lies on this disk is no fact about the model."""
    text = model.wanted.text
    return text if model.revision is not None or text.startswith("pypi:") or "://" in text else None


def max_positions(model: Located, overrides: Mapping[str, Any] = MappingProxyType({})) -> int | None:
    """Longest input in tokens that the model is made for, where its configuration or what is set in its place says."""
    if isinstance(given := overrides.get("max_position_embeddings"), int):
        return given
    gguf = gguf_of(model)
    if gguf is not None:
        from stages.fetch.gguf_model import context_length

        return context_length(model.root / gguf, model.wanted)
    value = _read_json(model.root / "config.json", model).get("max_position_embeddings")
    return value if isinstance(value, int) else None


def _copy(model: Located, patterns: Sequence[str], folder: Path) -> None:
    for name in matching(model.files, patterns):
        copyfile(model.root / name, folder / name)


def check_weights(folder: Path, model: Located) -> None:
    """Every shard that the index names is there, and every file opens as safetensors (a Git LFS pointer does not)."""
    from safetensors import SafetensorError, safe_open

    index = folder / "model.safetensors.index.json"
    what = f"{model.wanted.option} {model.wanted.text!r}"
    shards = _shards(_read_json(index, model), what) if index.exists() else {"model.safetensors"}
    for name in sorted(shards):
        if not (folder / name).is_file():
            raise RegrowError(f"{what} has no {name}.", "Download the model again: each file of model.safetensors.index.json is needed.")
        try:
            with safe_open(folder / name, framework="np"):
                pass
        except (SafetensorError, OSError) as error:
            remedy = "Download it again; in a Git clone of a model, run `git lfs pull`."
            raise RegrowError(f"{what}: {name} is not a safetensors file: {error}.", remedy) from None


def _shards(index: Mapping[str, Any], what: str) -> set[str]:
    """The files that an index names: beside it, and by their plain names."""
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise RegrowError(f"{what}: model.safetensors.index.json has no weight_map.", "Download it again.")
    for name in weight_map.values():
        if not isinstance(name, str) or not matching([name], WEIGHTS[:1]) or "/" in name or "\0" in name:
            raise RegrowError(f"{what}: model.safetensors.index.json names {name!r}, which is no file of its folder.", "Do not use it.")
    return set(weight_map.values())


def _check_fit(folder: Path, model: Located) -> None:
    """The tensors are those of the architecture. Left to training for quantized models, whose tensors depend on the library
    that wrote them."""
    if "quantization_config" in _read_json(folder / "config.json", model):
        return
    from pipeline.models import check_weights_fit

    check_weights_fit(folder, f"{model.wanted.option} {model.wanted.text!r}")


def _read_json(path: Path, model: Located) -> dict[str, Any]:
    return read_object(path, f"{model.wanted.option} {model.wanted.text!r}: {path.name}", "Download it again.")

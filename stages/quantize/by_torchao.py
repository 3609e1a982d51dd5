"""torchao: linear layers in fewer bits, rounded to nearest, a scale per output row or per group of weights.

Embeddings stay as they are unless they are asked for, and so does the output head, as transformers has it for torchao.

The folder is one that ``AutoModelForCausalLM.from_pretrained`` opens; transformers builds the model to write it, so memory is
that of the merged model and of its quantised copy.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.errors import RegrowError
from pipeline.models import quiet_libraries
from pipeline.options.quantization import QuantizedFormat
from pipeline.quantized_formats import folder_name, group_size
from pipeline.rounding import check_groups, config_of, embedding_config
from pipeline.torchao_pairs import Pair, find_pair
from stages.quantize.folder import facts_of_folder, save_folder
from stages.quantize.merged import Layers, open_merged, read_layers


def write_torchao(merged: Path, folder: Path, entry: QuantizedFormat) -> dict[str, Any]:
    """Quantize the model in ``merged`` into ``folder``, tokenizer included.

    Returns:
        What :func:`stages.quantize.folder.facts_of_folder` says.

    Raises:
        RegrowError: a model that transformers cannot open, one without linear layers, groups that do not fill its rows, or
            numbers that need another device.
    """
    quiet_libraries()
    pair, name = find_pair(entry.weight_dtype, entry.activation_dtype), folder_name(entry)
    if pair is None:
        raise AssertionError(f"{name} is refused by a rule")
    layers = read_layers(merged, name)
    size = pair.block or group_size(entry)
    check_groups(layers.rounded(embedding=bool(entry.quantize_embedding)), size, name, fixed=pair.block is not None)
    _require_device(entry, pair, name)
    model = _open(merged, entry, pair, layers)
    if entry.quantize_embedding:
        _quantize_embeddings(model, entry)
    save_folder(model, merged, folder)
    return facts_of_folder(folder, layers, len(layers.rows) + bool(entry.quantize_embedding))


def _require_device(entry: QuantizedFormat, pair: Pair, name: str) -> None:
    import torch

    least = (8, 0) if entry.packed else pair.gpu
    if least is None:
        return
    found = torch.cuda.get_device_capability() if torch.cuda.is_available() else None
    if found is None or found < least:
        has = "this machine has none" if found is None else f"this one has {found[0]}.{found[1]}"
        raise RegrowError(
            f"{name}: torchao writes it on a CUDA GPU of compute capability {least[0]}.{least[1]} or more, and {has}.",
            f"Run `dvc repro quantize` on such a machine, or write {_nearest(pair)} instead.",
        )
    if entry.packed or (pair.activation == "fp8" and pair.weight == "int4"):
        from importlib.util import find_spec

        if find_spec("mslk") is None:
            raise RegrowError(f"{name}: torchao packs int4 with the package mslk, which is not installed.", "pip install mslk")


def _nearest(pair: Pair) -> str:
    return (
        "weight_dtype int4 without packed" if pair.weight == "int4" else f"weight_dtype {'nvfp4' if 'fp4' in pair.weight else 'fp8'} alone"
    )


def _open(merged: Path, entry: QuantizedFormat, pair: Pair, layers: Layers) -> Any:
    import torch
    from transformers import AutoConfig, TorchAoConfig

    config = AutoConfig.from_pretrained(merged, local_files_only=True, trust_remote_code=False)
    untied = bool(entry.quantize_embedding and config.tie_word_embeddings)
    config.tie_word_embeddings = config.tie_word_embeddings and not untied
    settings: dict[str, Any] = {"quantization_config": TorchAoConfig(config_of(entry))}
    if pair.gpu or entry.packed:
        settings["device_map"] = {"": "cuda"}
    lacking = f"{layers.head}.weight" if untied else None
    model = open_merged(merged, folder_name(entry), untied=lacking, config=config, **settings)
    if untied:
        weight = model.get_input_embeddings().weight.detach().clone()
        model.get_output_embeddings().weight = torch.nn.Parameter(weight, requires_grad=False)
    return model


def _quantize_embeddings(model: Any, entry: QuantizedFormat) -> None:
    """transformers 5.23 would do it while loading, and for tied weights leaves an output head of random numbers."""
    from torchao.quantization import quantize_

    embeddings = model.get_input_embeddings()
    quantize_(embeddings, embedding_config(entry), filter_fn=lambda module, _: module is embeddings)

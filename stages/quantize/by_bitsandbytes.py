"""bitsandbytes: NF4 or FP4 with scales that are quantised too, or LLM.int8, as QLoRA and load_in_8bit hold a base model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.models import quiet_libraries
from pipeline.options.quantization import QuantizedFormat
from pipeline.quantized_formats import folder_name
from stages.quantize.folder import facts_of_folder, save_folder
from stages.quantize.merged import open_merged, read_layers


def write_bitsandbytes(merged: Path, folder: Path, entry: QuantizedFormat) -> dict[str, Any]:
    """Quantize the model in ``merged`` into ``folder``; memory is that of the merged model.

    Raises:
        RegrowError: a model that cannot be opened so, or one without linear layers.
    """
    quiet_libraries()
    import torch

    name = folder_name(entry)
    layers = read_layers(merged, name)
    place = {"": "cuda" if torch.cuda.is_available() else "cpu"}
    model = open_merged(merged, name, quantization_config=_config(entry), device_map=place)
    save_folder(model, merged, folder)
    return facts_of_folder(folder, layers, len(layers.rows))


def _config(entry: QuantizedFormat) -> Any:
    from transformers import BitsAndBytesConfig

    if entry.type == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)  # type: ignore[no-untyped-call]
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True, bnb_4bit_quant_type=entry.type, bnb_4bit_use_double_quant=True
    )

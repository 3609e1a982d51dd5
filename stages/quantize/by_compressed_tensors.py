"""compressed-tensors: the layout of files that vLLM reads, weights rounded to nearest.

Activations, where a scheme rounds them, get their scale token by token while the model runs, so no scheme here looks at data.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

from pipeline.models import quiet_libraries
from pipeline.options.quantization import QuantizedFormat
from pipeline.quantized_formats import folder_name, group_size
from pipeline.rounding import check_groups
from stages.quantize.folder import facts_of_folder, save_folder
from stages.quantize.merged import open_merged, read_layers


def write_compressed_tensors(merged: Path, folder: Path, entry: QuantizedFormat) -> dict[str, Any]:
    """Quantize the model in ``merged`` into ``folder``; memory is that of the merged model and its copy.

    Raises:
        RegrowError: a model that cannot be opened, one without linear layers, or groups that do not fill its rows.
    """
    quiet_libraries()
    import torch

    quantization = import_module("compressed_tensors.quantization")  # an extra: not in the lock, see VERSIONS
    name, size = folder_name(entry), group_size(entry)
    layers = read_layers(merged, name)
    check_groups(layers.rounded(), size, name)
    scheme = quantization.preset_name_to_scheme(str(entry.scheme), ["Linear"])
    if size is not None:
        scheme.weights.group_size = size
    model = open_merged(merged, name)
    config = quantization.QuantizationConfig(
        config_groups={"group_0": scheme}, ignore=[] if layers.head is None else [layers.head], quantization_status="initialized"
    )
    with torch.no_grad(), _without_bars():
        quantization.apply_quantization_config(model, config)
        for place in layers.rows:
            _scale(model.get_submodule(place), quantization)
        compressor = import_module("compressed_tensors.compressors").ModelCompressor.from_pretrained_model(model)
        compressor.compress_model(model)
        save_folder(model, merged, folder)
        compressor.update_config(folder)
    return facts_of_folder(folder, layers, len(layers.rows))


def _scale(layer: Any, quantization: Any) -> None:
    """The scales of one layer: the largest weight of each row or group becomes the largest number there is."""
    arguments, weight = layer.quantization_scheme.weights, layer.weight
    grouped = weight.unflatten(1, (-1, arguments.group_size or weight.shape[1]))
    scale, zero_point = quantization.utils.calculate_qparams(grouped.amin(-1), grouped.amax(-1), arguments)
    layer.weight_scale.copy_(scale)
    layer.weight_zero_point.copy_(zero_point)
    layer.quantization_status = quantization.QuantizationStatus.FROZEN


@contextmanager
def _without_bars() -> Iterator[None]:
    """compressed-tensors 0.20 draws a bar for each of its steps, and has no switch for them. What else it says comes through."""
    held = StringIO()
    with redirect_stderr(held):
        yield
    lines = (line for line in held.getvalue().splitlines() if line.strip() and "it/s]" not in line)
    sys.stderr.write("".join(f"{line}\n" for line in lines))

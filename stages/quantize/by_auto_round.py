"""AutoRound (arXiv 2309.05516): learns, block by block, which weights to round up and which down.

The result is written in its own layout, in GPTQ's or in AWQ's. The packages that are named after these two cannot be installed
beside the versions of torch and transformers that regrow uses; what reads their files reads these.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from importlib import import_module
from io import StringIO
from pathlib import Path
from shutil import move
from typing import Any

from pipeline.errors import RegrowError
from pipeline.models import quiet_libraries
from pipeline.options.quantization import QuantizedFormat
from pipeline.quantized_formats import folder_name, group_size
from pipeline.rounding import check_groups
from stages.quantize.calibration import Calibration
from stages.quantize.folder import facts_of_folder, finish_folder, header, weight_files
from stages.quantize.merged import open_merged, read_layers

_LAYOUTS = {"auto-round": "auto_round", "gptq": "auto_gptq", "awq": "auto_awq"}
_ITERATIONS = 200
"""AutoRound's own default."""


def write_auto_round(merged: Path, folder: Path, entry: QuantizedFormat, calibration: Calibration, scratch: Path) -> dict[str, Any]:
    """Quantize the model in ``merged`` into ``folder``; memory is that of the merged model and of the activations of one block.

    Args:
        scratch: an empty folder, for what the library writes on its way.

    Raises:
        RegrowError: a model that cannot be opened, one without linear layers, or groups that do not fill its rows.
    """
    quiet_libraries()
    from transformers import AutoTokenizer

    name, size = folder_name(entry), group_size(entry)
    layers = read_layers(merged, name)
    check_groups(layers.rounded(), size, name)
    model = open_merged(merged, name)
    tokenizer: Any = AutoTokenizer.from_pretrained(merged, local_files_only=True, trust_remote_code=False)
    with _quiet():
        _round(model, tokenizer, entry, int(size or 0), calibration).quantize_and_save(str(scratch), format=_LAYOUTS[entry.format])
    written = sorted(path for pattern in ("config.json", "quantization_config.json", "model*") for path in scratch.rglob(pattern))
    for path in written:
        move(path, folder / path.name)
        (folder / path.name).chmod(0o644)
    finish_folder(merged, folder)
    quantized = sum(place.endswith(".qweight") for file in weight_files(folder) for place in header(file))
    if quantized != len(layers.rows):
        raise RegrowError(f"{name}: AutoRound quantised {quantized} of {len(layers.rows)} layers.", f"Remove {name} from quantize.")
    return facts_of_folder(folder, layers, quantized) | {"iterations": _iterations(entry)}


def _iterations(entry: QuantizedFormat) -> int:
    return _ITERATIONS if entry.iterations is None else entry.iterations


def _round(model: Any, tokenizer: Any, entry: QuantizedFormat, size: int, calibration: Calibration) -> Any:
    import torch

    stretches = torch.from_numpy(calibration.ids)
    return import_module("auto_round").AutoRound(  # an extra: not in the lock, see VERSIONS
        model,
        tokenizer,
        bits=entry.bits or 4,
        group_size=size,
        sym=True,
        iters=_iterations(entry),
        nsamples=len(stretches),
        seqlen=stretches.shape[1],
        batch_size=min(8, len(stretches)),
        dataset=[{"input_ids": row[None]} for row in stretches],
        device_map="0" if torch.cuda.is_available() else "cpu",
        enable_torch_compile=False,
        seed=calibration.seed,
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """AutoRound 0.16 reports every step and draws bars. Errors come through."""
    logging.getLogger("autoround").setLevel(logging.ERROR)
    held = StringIO()
    try:
        with redirect_stderr(held):
            yield
    except BaseException:
        sys.stderr.write(held.getvalue()[-2000:])
        raise

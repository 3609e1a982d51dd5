"""quantize: the merged model in smaller formats.

Reads ``merged``. Writes ``quantized``, one folder per format of ``quantize.formats``: ``int8/``, a Hugging Face folder with
torchao's weight-only int8, and ``q8_0/model.gguf``, one file for llama.cpp and what is built on it.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pipeline.errors import MissingExtra
from pipeline.options.views import QuantizeOptions
from pipeline.progress import Progress
from pipeline.stage import Job, Metrics, Stage

_NEEDS = {"int8": ("torchao", "int8"), "q8_0": ("gguf", "gguf")}
"""Format → the package it needs, and the extra of regrow that installs it."""


def run(job: Job[QuantizeOptions]) -> Metrics:
    """Write every format once, and say how small it came out.

    Returns:
        For each format: bytes of the weight files, their ratio to the merged model's, bits per weight, tensors quantized.

    Raises:
        MissingExtra: a format whose library is not installed.
        RegrowError: a model that a format cannot hold.
    """
    merged, draft = job.inputs["merged"].path, job.outputs["quantized"]
    formats = list(dict.fromkeys(job.options.quantize.formats))
    before = sum(file.stat().st_size for file in merged.glob("model*.safetensors"))
    facts = {name: _write(name, merged, draft.path / name, job.progress) for name in formats}
    draft.describe(formats=facts)
    return {name: {**fact, "ratio_to_merged": round(fact["bytes"] / before, 4)} for name, fact in facts.items()}


def _write(name: str, merged: Path, folder: Path, progress: Progress) -> dict[str, Any]:
    package, extra = _NEEDS[name]
    if find_spec(package) is None:
        raise MissingExtra(f"quantize.formats: {name}", package, extra)
    folder.mkdir()
    if name == "int8":
        from stages.quantize.int8 import write_int8

        return write_int8(merged, folder)
    from stages.quantize.q8_0 import write_q8_0

    return write_q8_0(merged, folder / "model.gguf", progress)


STAGE = Stage("quantize", QuantizeOptions, reads=("merged",), writes=("quantized",), run=run)

"""quantize: the merged model in smaller formats.

Reads ``merged``; for formats that look at data also ``tokens`` and ``packed``. Writes ``quantized``, one folder for each entry of
``quantize``, of ``quantization`` and of ``qat``: a Hugging Face folder, or ``model.gguf``; in each, ``quantize.json`` says what it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipeline.digest import canonical_json
from pipeline.errors import MissingExtra, RegrowError
from pipeline.options.quantization import AfterTraining, QuantizedFormat, WhileTraining
from pipeline.options.views import QuantizeOptions
from pipeline.quantized_formats import EXTRAS, ROUNDED_BY_AUTO_ROUND, VERSIONS, folder_name, group_size
from pipeline.stage import Job, Metrics, Stage

DESCRIPTION = "quantize.json"
_LIBRARIES = {name: (package, extra) for name, package, extra in EXTRAS}
_CALIBRATION = {"stretches": 128, "length": 512, "seed": 42}


def run(job: Job[QuantizeOptions]) -> Metrics:
    """Write every format once, and say how small it came out.

    Returns:
        For each format: bytes of the weight files, their ratio to the merged model's, bits per weight, tensors quantized.

    Raises:
        MissingExtra: a format whose library is not installed.
        RegrowError: a model that a format cannot hold.
    """
    merged, draft = job.inputs["merged"].path, job.outputs["quantized"]
    before = sum(file.stat().st_size for file in merged.glob("model*.safetensors"))
    entries = {folder_name(entry): entry for entry in asked_for(job.options)}
    for entry in entries.values():
        _require(entry)
    facts = {name: _write(job, entry, draft.path / name) for name, entry in entries.items()}
    draft.describe(formats=facts)
    return {name: _metrics(fact, before) for name, fact in facts.items()}


def asked_for(options: QuantizeOptions) -> Iterator[QuantizedFormat]:
    """Every format that the options ask for, under whatever key."""
    yield from (entry for entry in options.quantize if isinstance(entry, QuantizedFormat))
    yield from (_by_torchao(block) for block in (options.quantization, options.qat) if block is not None)


def _by_torchao(block: AfterTraining | WhileTraining) -> QuantizedFormat:
    keys = ("weight_dtype", "activation_dtype", "group_size", "quantize_embedding")
    return QuantizedFormat.model_validate({"format": "torchao"} | {key: getattr(block, key) for key in keys})


def _require(entry: QuantizedFormat) -> None:
    (package, extra), name = _LIBRARIES[entry.format], f"quantize: {folder_name(entry)}"
    if find_spec(package) is None:
        raise MissingExtra(name, package, extra)
    distribution, wanted = VERSIONS.get(package, ("", ""))
    if wanted and (found := version(distribution).partition("+")[0]) != wanted:
        raise RegrowError(
            f"{name}: {distribution} is {found} here; its files are those of {wanted}.", f"Run: pip install 'regrow[{extra}]'"
        )


def _metrics(facts: dict[str, Any], before: int) -> Metrics:
    told = {key: facts[key] for key in ("bytes", "bits_per_weight", "tensors", "quantized")}
    return told | {"ratio_to_merged": round(facts["bytes"] / before, 4)}


def _write(job: Job[QuantizeOptions], entry: QuantizedFormat, folder: Path) -> dict[str, Any]:
    """One folder, and what the manifest says of it."""
    folder.mkdir()
    facts = {"format": entry.format, "same_bytes": _repeats(entry)} | _write_weights(job, entry, folder)
    size = {"group_size": group_size(entry)}
    told = {"quantize": (entry.model_dump() | size), "opened_with": _LIBRARIES[entry.format][0]} | facts
    (folder / DESCRIPTION).write_text(canonical_json(_without_nothing(told)), encoding="utf-8")
    return facts


def _without_nothing(told: dict[str, Any]) -> dict[str, Any]:
    return {key: _without_nothing(value) if isinstance(value, dict) else value for key, value in told.items() if value is not None}


def _repeats(entry: QuantizedFormat) -> str:
    """Where the same model gives the same bytes again: sums of many numbers depend on the order in which a device adds them."""
    return "everywhere" if entry.format in ("gguf", "torchao", "compressed-tensors") else "on one kind of device"


def _write_weights(job: Job[QuantizeOptions], entry: QuantizedFormat, folder: Path) -> dict[str, Any]:
    merged = job.inputs["merged"].path
    if entry.format == "gguf":
        from stages.quantize.gguf_file import write_gguf

        return write_gguf(merged, folder / "model.gguf", str(entry.type), job.progress)
    if entry.format == "torchao":
        from stages.quantize.by_torchao import write_torchao

        return write_torchao(merged, folder, entry)
    if entry.format == "compressed-tensors":
        from stages.quantize.by_compressed_tensors import write_compressed_tensors

        return write_compressed_tensors(merged, folder, entry)
    if entry.format in ROUNDED_BY_AUTO_ROUND:
        return _write_calibrated(job, entry, folder)
    from stages.quantize.by_bitsandbytes import write_bitsandbytes

    return write_bitsandbytes(merged, folder, entry)


def _write_calibrated(job: Job[QuantizeOptions], entry: QuantizedFormat, folder: Path) -> dict[str, Any]:
    from stages.quantize.by_auto_round import write_auto_round
    from stages.quantize.calibration import draw_calibration

    given = {key: getattr(entry, f"calibration_{'rows' if key == 'stretches' else key}") for key in _CALIBRATION}
    chosen = {key: default if given[key] is None else given[key] for key, default in _CALIBRATION.items()}
    calibration = draw_calibration(job.inputs["tokens"], job.inputs["packed"], **chosen)
    with TemporaryDirectory(dir=job.scratch) as scratch:
        facts = write_auto_round(job.inputs["merged"].path, folder, entry, calibration, Path(scratch))
    return facts | {"calibration": calibration.facts()}


STAGE = Stage("quantize", QuantizeOptions, reads=("merged", "tokens", "packed"), writes=("quantized",), run=run)
"""tokens and packed are those that the model was trained on: they change only when it does."""

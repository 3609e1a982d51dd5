"""bitsandbytes, compressed-tensors and AutoRound: each folder reloads, generates and is the same bytes every time."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoRoundConfig

from pipeline.errors import RegrowError
from tests.quantize.merged import answer, logits, publish_merged, quantize, save_any, save_llama

Entries = dict[str, tuple[dict[str, Any], float, float]]

BITSANDBYTES: Entries = {
    "bitsandbytes-nf4": ({"type": "nf4"}, 0.25, 7),
    "bitsandbytes-fp4": ({"type": "fp4"}, 0.25, 7),
    "bitsandbytes-int8": ({"type": "int8"}, 0.04, 8.6),
}
COMPRESSED: Entries = {
    "compressed-tensors-w8a8": ({"scheme": "W8A8"}, 0.04, 8.6),
    "compressed-tensors-w8a16-g32": ({"scheme": "W8A16"}, 0.04, 9.1),
    "compressed-tensors-w4a16-g64": ({"scheme": "W4A16", "group_size": 64}, 0.25, 4.7),
    "compressed-tensors-w4a8-g32": ({"scheme": "W4A8"}, 0.25, 9.1),
    "compressed-tensors-fp8_dynamic": ({"scheme": "FP8_DYNAMIC"}, 0.1, 8.6),
}
LEARNED: dict[str, Any] = {"iterations": 1, "calibration_rows": 4, "calibration_length": 16}
AUTO_ROUND: Entries = {
    "auto-round-4bit-g32": (LEARNED, 0.25, 4.8),
    "gptq-8bit-g64": (LEARNED | {"bits": 8, "group_size": 64}, 0.04, 9.2),
    "awq-4bit-g32": (LEARNED, 0.25, 4.8),
}
"""Folder, what its entry says besides the format, how far logits may be off, bits of a weight in linear layers at most: these are small."""


def reopen(folder: Path) -> Any:
    """The model, by transformers. Packages called GPTQ and AWQ are not needed: AutoRound reads these layouts."""
    method = json.loads((folder / "config.json").read_text())["quantization_config"]["quant_method"]
    own = {"quantization_config": AutoRoundConfig()} if method in ("gptq", "awq") else {}  # type: ignore[no-untyped-call]
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **own)


def check(workspace: Path, entries: Entries, format_of: Any = lambda name: name, **model: Any) -> Path:
    """Write all, reload all; data/quantized."""
    merged = publish_merged(workspace, partial(save_llama, **model))
    before = AutoModelForCausalLM.from_pretrained(merged.path, dtype=torch.float32)
    listed = [{"format": format_of(name)} | entry for name, (entry, _, _) in entries.items()]
    folder, metrics = quantize(workspace, *listed)
    assert list(metrics) == list(entries)
    for name, (_, share, bits) in entries.items():
        after = reopen(folder / name)
        error = (logits(after) - logits(before)).abs().max()
        assert 0 < error < share * logits(before).abs().max(), name
        assert len(answer(after)) == 8
        facts = json.loads((folder / name / "quantize.json").read_text())
        assert (
            facts["quantized"] == sum("proj" in key for key, _ in before.named_parameters())
            and facts["tensors"] == len(list(before.parameters()))
            and str(workspace) not in str(facts)
        )
        linear = sum(module.numel() for key, module in before.named_parameters() if "proj" in key)
        other = sum(module.numel() for key, module in before.named_parameters() if "proj" not in key)
        assert facts["bits_per_weight"] <= (bits * linear + 8 * before.dtype.itemsize * other) / (linear + other)
        assert all(str(workspace).encode() not in path.read_bytes() for path in (folder / name).iterdir())
        assert {"tokenizer.json", "config.json", "model.safetensors"} <= {path.name for path in (folder / name).iterdir()}
    first = next(iter(entries))
    contents = {path: path.read_bytes() for path in (folder / first).iterdir()}
    quantize(workspace, listed[0])
    assert [path.name for path, content in contents.items() if path.read_bytes() != content] == []
    return folder


@pytest.mark.parametrize("tied", [True, False])
def test_bitsandbytes(tmp_path: Path, tied: bool) -> None:
    pytest.importorskip("bitsandbytes")
    check(tmp_path, BITSANDBYTES, lambda _: "bitsandbytes", tie_word_embeddings=tied)


@pytest.mark.parametrize("tied", [True, False])
def test_compressed_tensors(tmp_path: Path, tied: bool) -> None:
    pytest.importorskip("compressed_tensors")
    folder = check(tmp_path, COMPRESSED, lambda _: "compressed-tensors", tie_word_embeddings=tied)
    config = json.loads((folder / "compressed-tensors-w8a8" / "config.json").read_text())["quantization_config"]
    assert config["quant_method"] == "compressed-tensors" and config["ignore"] == ["lm_head"]


@pytest.fixture
def quick_collection() -> Iterator[None]:
    """AutoRound collects garbage a dozen times, each time through everything that was ever imported."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.slow
@pytest.mark.usefixtures("quick_collection")
def test_auto_round_in_its_three_layouts(tmp_path: Path) -> None:
    pytest.importorskip("auto_round_kernel")
    folder = check(tmp_path, AUTO_ROUND, lambda name: name.rsplit("-", 2)[0], num_hidden_layers=1)
    facts = json.loads((folder / "auto-round-4bit-g32" / "quantize.json").read_text())
    assert facts["same_bytes"] == "on one kind of device"
    calibration = facts["calibration"]
    assert (calibration["stretches"], calibration["length"], calibration["seed"]) == (4, 16, 42)
    assert 0 < len(calibration["rows"]) <= 6 and max(calibration["rows"]) < 16, "rows that are trained, no others"


@pytest.mark.parametrize("package", ["compressed_tensors", "bitsandbytes", "auto_round"])
def test_a_model_without_linear_layers(tmp_path: Path, package: str) -> None:
    pytest.importorskip(package)
    entry = {"bitsandbytes": {"type": "nf4"}, "compressed_tensors": {"scheme": "W8A8"}, "auto_round": LEARNED}[package]
    publish_merged(tmp_path, partial(save_any, model_type="gpt2", n_layer=1, n_head=4, n_embd=64))
    with pytest.raises(RegrowError, match="no linear layer"):
        quantize(tmp_path, {"format": package.replace("_", "-")} | entry)

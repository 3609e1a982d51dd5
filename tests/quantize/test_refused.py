"""What quantize refuses: one message that names the cause and what to remove, and nothing left behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.errors import MissingExtra, RegrowError
from stages.quantize import STAGE
from tests.quantize.merged import publish_merged, publish_rows, save_any, save_bpe, save_llama
from tests.tiny import publish_artifact, run_stage

YARN = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4, "original_max_position_embeddings": 128}


def edit(name: str, change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    """A llama and its tokenizer with one JSON file changed in place."""

    def fill(folder: Path) -> None:
        save_llama(folder)
        save_bpe(folder)
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))

    return fill


def spoil(tensor: str, value: torch.Tensor) -> Callable[[Path], None]:
    """A llama and its tokenizer with one tensor put into its file."""

    def fill(folder: Path) -> None:
        save_llama(folder)
        save_bpe(folder)
        save_file(load_file(folder / "model.safetensors") | {tensor: value}, folder / "model.safetensors")

    return fill


def without_tokenizer(folder: Path) -> None:
    save_llama(folder)


CASES: dict[str, tuple[Callable[[Path], None], str]] = {
    "scaled rope": (partial(save_any, model_type="llama", rope_parameters=YARN), "rope_type: 'yarn'"),
    "another activation": (partial(save_any, model_type="llama", hidden_act="gelu"), "hidden_act: 'gelu'"),
    "a sliding window": (partial(save_any, model_type="mistral", sliding_window=16), "sliding_window: 16"),
    "another architecture": (partial(save_any, model_type="gemma", head_dim=16), "GemmaForCausalLM"),
    "no tokenizer": (without_tokenizer, "tokenizer.json cannot be read"),
    "unigram": (edit("tokenizer.json", lambda content: content["model"].update(type="Unigram")), "Unigram"),
    "byte fallback": (edit("tokenizer.json", lambda content: content["model"].update(byte_fallback=True)), "byte fallback"),
    "a normalizer": (edit("tokenizer.json", lambda content: content.update(normalizer={"type": "Lowercase"})), "Lowercase"),
    "a prefix space": (
        edit("tokenizer.json", lambda content: content["pre_tokenizer"]["pretokenizers"][1].update(add_prefix_space=True)),
        "add_prefix_space",
    ),
    "no pre-tokenizer": (edit("tokenizer.json", lambda content: content.update(pre_tokenizer=None)), "pre-tokenizer"),
    "more tokens than rows": (
        edit("tokenizer.json", lambda content: content["added_tokens"].append({"id": 400, "content": "<x>", "special": True})),
        "token id 400",
    ),
    "an unknown tensor": (spoil("model.extra.weight", torch.ones(2, 2)), "model.extra.weight"),
    "not a number": (spoil("model.norm.weight", torch.full((64,), torch.nan)), "not finite"),
}


@pytest.mark.parametrize("case", CASES)
def test_q8_0_refuses_what_would_be_another_model(tmp_path: Path, case: str) -> None:
    save, expected = CASES[case]
    publish_rows(tmp_path)
    publish_artifact(tmp_path / "data", "merged", save, kind="full")
    if isinstance(save, partial):
        publish_merged(tmp_path, save)
    with pytest.raises(RegrowError) as caught:
        run_stage(STAGE, tmp_path, {"quantize": ["q8_0"]})
    assert expected in str(caught.value)
    assert ("Remove the types of GGUF from quantize." in str(caught.value)) == (case != "not a number")
    assert not (tmp_path / "data" / "quantized").exists()


def test_a_pre_tokenizer_nobody_knows(tmp_path: Path) -> None:
    publish_merged(tmp_path, cut="nobody's")
    with pytest.raises(RegrowError, match=r"no llama\.cpp name"):
        run_stage(STAGE, tmp_path, {"quantize": ["q8_0"]})


def test_no_formats_is_an_empty_artifact_and_a_repeated_one_is_written_once(tmp_path: Path) -> None:
    publish_merged(tmp_path)
    outputs, metrics = run_stage(STAGE, tmp_path, {"quantize": []})
    assert not outputs["quantized"].files and not metrics
    outputs, metrics = run_stage(STAGE, tmp_path, {"quantize": ["q8_0", {"format": "gguf", "type": "q8_0"}]})
    assert list(outputs["quantized"].files) == ["q8_0/model.gguf", "q8_0/quantize.json"] and list(metrics) == ["q8_0"]


MISSING: dict[str, tuple[Any, str]] = {
    "int8": ("int8", "int8"),
    "q8_0": ("q8_0", "gguf"),
    "bitsandbytes-nf4": ({"format": "bitsandbytes", "type": "nf4"}, "bitsandbytes"),
    "compressed-tensors-w4a16-g32": ({"format": "compressed-tensors", "scheme": "W4A16"}, "compressed-tensors"),
    "auto-round-4bit-g32": ({"format": "auto-round"}, "auto-round"),
    "gptq-8bit-g64": ({"format": "gptq", "bits": 8, "group_size": 64}, "auto-round"),
    "awq-4bit-g32": ({"format": "awq"}, "auto-round"),
}


def test_a_library_of_another_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its version decides what is written, and is no part of the lock."""
    publish_merged(tmp_path)
    monkeypatch.setattr("stages.quantize.find_spec", lambda package: object())
    monkeypatch.setattr("stages.quantize.version", lambda distribution: "0.1.0")
    with pytest.raises(RegrowError, match=r"compressed-tensors is 0\.1\.0 here") as caught:
        run_stage(STAGE, tmp_path, {"quantize": [{"format": "compressed-tensors", "scheme": "W8A8"}]})
    assert "regrow[compressed-tensors]" in str(caught.value)


def test_a_model_that_judges(tmp_path: Path) -> None:
    """Read as one that writes, it would get a head of random numbers."""
    publish_rows(tmp_path)

    def fill(folder: Path) -> None:
        save_llama(folder)
        change = {"architectures": ["LlamaForSequenceClassification"]}
        (folder / "config.json").write_text(json.dumps(json.loads((folder / "config.json").read_text()) | change))

    publish_artifact(tmp_path / "data", "merged", fill)
    with pytest.raises(RegrowError, match="judges text and writes none"):
        run_stage(STAGE, tmp_path, {"quantize": ["int8"]})


@pytest.mark.parametrize("folder", MISSING)
def test_a_library_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    name, extra = MISSING[folder]
    publish_merged(tmp_path)
    monkeypatch.setattr("stages.quantize.find_spec", lambda package: None)
    with pytest.raises(MissingExtra, match=rf"quantize: {folder} needs the package") as caught:
        run_stage(STAGE, tmp_path, {"quantize": [name]})
    assert f"regrow[{extra}]" in str(caught.value)

"""Every format that quantize writes is opened and judged, each with the library it needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.errors import MissingExtra, RegrowError
from pipeline.model_folder import open_model
from tests.quantize.merged import publish_merged, quantize

FORMATS: list[tuple[str, dict[str, Any], float]] = [
    ("gguf", {"format": "gguf", "type": "q4_0"}, 0.3),
    ("gguf", {"format": "gguf", "type": "bf16"}, 0.02),
    ("torchao", {"format": "torchao", "weight_dtype": "int8", "activation_dtype": "int8"}, 0.05),
    ("compressed_tensors", {"format": "compressed-tensors", "scheme": "W8A16"}, 0.05),
    ("compressed_tensors", {"format": "compressed-tensors", "scheme": "W8A8"}, 0.05),
    ("bitsandbytes", {"format": "bitsandbytes", "type": "nf4"}, 0.3),
    ("auto_round", {"format": "gptq", "bits": 8, "iterations": 1, "calibration_rows": 4, "calibration_length": 16}, 0.05),
]


@pytest.mark.parametrize(("package", "entry", "share"), FORMATS, ids=lambda value: value if isinstance(value, str) else None)
def test_it_opens_and_reads_nearly_as_the_merged_model(package: str, entry: dict[str, Any], share: float, tmp_path: Path) -> None:
    pytest.importorskip(package, reason="an extra of regrow")
    merged = publish_merged(tmp_path)
    folder, metrics = quantize(tmp_path, entry)
    ids = torch.arange(40).reshape(2, 20)
    with torch.no_grad():
        before = open_model(merged.path)(input_ids=ids).logits
        after = open_model(folder / next(iter(metrics)))(input_ids=ids.clone()).logits.float()
    assert 0 < (after - before).abs().max() < share * before.abs().max()


def test_a_format_names_the_package_that_opens_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline import model_folder

    monkeypatch.setattr(model_folder, "find_spec", lambda name: None)
    (tmp_path / "config.json").write_text('{"quantization_config": {"quant_method": "compressed-tensors"}}')
    with pytest.raises(MissingExtra, match=r"'compressed_tensors'[^$]*regrow\[compressed-tensors\]"):
        open_model(tmp_path)


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(RegrowError, match=r"holds neither config\.json nor one GGUF file"):
        open_model(tmp_path)

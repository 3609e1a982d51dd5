"""What merge refuses, each with one message that names the cause, and nothing left behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.artifact import Draft, seal
from pipeline.errors import RegrowError, StaleInput
from stages.merge import STAGE
from tests.merge.adapters import edit_config, edit_tensors, llama, publish_adapter, publish_base
from tests.tiny import publish_artifact, run_stage

Q = "layers.0.self_attn.q_proj"
PLAIN: dict[str, Any] = {"r": 4, "target_modules": ["q_proj"]}

SETTINGS: dict[str, Any] = {
    "lora_bias": True,
    "peft_type": "LOHA",
    "init_lora_weights": "pissa_niter_4",
    "use_qalora": True,
    "kasa_config": {"beta": 1.0},
    "a_setting_of_tomorrow": 3,
}


def refused(workspace: Path) -> str:
    with pytest.raises(RegrowError) as caught:
        run_stage(STAGE, workspace)
    assert not (workspace / "data" / "merged").exists()
    return str(caught.value)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_that_cannot_be_merged_is_named(tmp_path: Path, name: str) -> None:
    publish_base(tmp_path, llama())
    publish_adapter(tmp_path, edit_config(**{name: SETTINGS[name]}), **PLAIN)
    message = refused(tmp_path)
    assert name in message and "adapter_config.json" in message


TENSORS: dict[str, tuple[Callable[[Path], None], str]] = {
    "half a pair": (edit_tensors({}, drop=[f"{Q}.lora_B.weight"]), "needs A and B"),
    "a magnitude without DoRA": (edit_tensors({f"{Q}.lora_magnitude_vector": torch.ones(64)}), "use_dora: False"),
    "a layer the base lacks": (edit_tensors({"layers.7.mlp.up_proj.weight": torch.ones(2, 2)}), "layers.7"),
    "a bias of the update": (edit_tensors({f"{Q}.lora_B.bias": torch.ones(64)}), "lora_B.bias"),
    "no name of peft": (edit_tensors({"model.norm.weight": torch.ones(64)}), "does not begin with"),
    "two for one": (edit_tensors({f"{Q}{name}.weight": torch.ones(64, 64) for name in ("", ".base_layer")}), "holds both"),
    "a resized layer": (edit_tensors({"norm.weight": torch.ones(65)}), "(65,)"),
    "another width": (edit_tensors({f"{Q}.lora_A.weight": torch.ones(4, 63)}), "(64, 63)"),
    "another rank": (edit_tensors({f"{Q}.lora_A.weight": torch.ones(3, 64), f"{Q}.lora_B.weight": torch.ones(64, 3)}), "rank 3"),
    "not a number": (edit_tensors({f"{Q}.lora_A.weight": torch.full((4, 64), torch.nan)}), "learning_rate"),
}


@pytest.mark.parametrize("case", TENSORS)
def test_every_adapter_tensor_is_used_or_refused(tmp_path: Path, case: str) -> None:
    edit, expected = TENSORS[case]
    publish_base(tmp_path, llama())
    publish_adapter(tmp_path, edit, **PLAIN)
    assert expected in refused(tmp_path)


def test_dora_without_its_magnitudes(tmp_path: Path) -> None:
    publish_base(tmp_path, llama())
    publish_adapter(tmp_path, edit_config(use_dora=True), **PLAIN)
    assert "magnitude vector" in refused(tmp_path)


def test_a_quantized_base(tmp_path: Path) -> None:
    publish_base(tmp_path, llama())
    publish_adapter(tmp_path, **PLAIN)

    def fill(folder: Path) -> None:
        llama()(folder)
        path = folder / "config.json"
        path.write_text(path.read_text().replace("{", '{"quantization_config": {"quant_method": "gptq"},', 1))

    publish_base(tmp_path, fill)
    assert "full precision" in refused(tmp_path)


def test_ends_that_contradict_the_configuration(tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        llama(tie_word_embeddings=False)(folder)
        path = folder / "config.json"
        path.write_text(path.read_text().replace('"tie_word_embeddings": false', '"tie_word_embeddings": true'))

    publish_base(tmp_path, llama(tie_word_embeddings=False))
    publish_adapter(tmp_path, target_modules=["embed_tokens"])
    publish_base(tmp_path, fill)
    assert "tie_word_embeddings" in refused(tmp_path)


@pytest.mark.parametrize("kind", [None, "gguf"])
def test_an_unknown_kind(tmp_path: Path, kind: str | None) -> None:
    publish_base(tmp_path, llama())
    publish_artifact(tmp_path / "data", "trained", llama(), kind=kind)
    assert repr(kind) in refused(tmp_path)


def test_an_adapter_of_another_base(tmp_path: Path) -> None:
    publish_base(tmp_path, llama())
    publish_adapter(tmp_path, **PLAIN)
    trained = tmp_path / "data" / "trained"
    (trained / "manifest.json").unlink()
    seal(Draft("trained", trained, {"kind": "adapter"}), {"base": "0" * 64})
    with pytest.raises(StaleInput, match="another base"):
        run_stage(STAGE, tmp_path)

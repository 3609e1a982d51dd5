"""An adapter to go on from is known by its bytes, and what the file says beside it must agree."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.configure import stage_document
from pipeline.errors import RegrowError
from pipeline.identity import read_lock
from pipeline.options.reading.source import parse
from pipeline.options.recipe import check_source
from pipeline.project import Project
from stages.train import STAGE
from tests.options.configs import GOOD

REPOSITORY = Project(Path(__file__).parents[2])
CONFIG: dict[str, Any] = {"peft_type": "LORA", "r": 4, "lora_alpha": 6, "lora_dropout": 0.0, "target_modules": ["v_proj", "q_proj"]}


def write(folder: Path, **changes: Any) -> Path:
    """An adapter; its tensors are looked at by nobody here."""
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG | changes))
    (folder / "adapter_model.safetensors").write_bytes(b"tensors")
    return folder


def identity(folder: Path, extra: str = "") -> Any:
    """What stands for the adapter in data/options/train.json."""
    recipe = check_source(parse(f"{GOOD}adapter: lora\nlora_model_dir: {folder}\n{extra}", "params.yaml"))
    return stage_document(REPOSITORY, recipe, STAGE, read_lock(REPOSITORY.lock))["options"]["lora_model_dir"]


def test_bytes_decide_and_the_path_does_not(tmp_path: Path) -> None:
    first = identity(write(tmp_path / "first"))
    shutil.copytree(tmp_path / "first", tmp_path / "moved")
    assert identity(tmp_path / "moved") == first and first.keys() == {"adapter_config.json", "adapter_model.safetensors"}
    (tmp_path / "moved" / "adapter_model.safetensors").write_bytes(b"others")
    assert identity(tmp_path / "moved") != first


@pytest.mark.parametrize("extra", ["lora_r: 4", "lora_target_modules: [q_proj, v_proj]", "lora_alpha: 6\npeft_use_dora: false", ""])
def test_options_may_repeat_the_adapter(tmp_path: Path, extra: str) -> None:
    assert identity(write(tmp_path / "adapter", modules_to_save=None), extra)


@pytest.mark.parametrize(("extra", "key"), [
    ("lora_r: 8", "lora_r: 8 contradicts.* whose r is 4"),
    ("lora_target_modules: [q_proj]", "lora_target_modules: "),
    ("peft_use_rslora: true", "peft_use_rslora: True"),
    ("peft_init_lora_weights: pissa", "peft_init_lora_weights: 'pissa'"),
    ("lora_modules_to_save: [norm]", "lora_modules_to_save: "),
])  # fmt: skip
def test_options_may_not_contradict_the_adapter(tmp_path: Path, extra: str, key: str) -> None:
    with pytest.raises(RegrowError, match=key) as caught:
        identity(write(tmp_path / "adapter"), extra)
    assert extra.split(":")[0] in str(caught.value.remedy)


def test_what_is_no_adapter(tmp_path: Path) -> None:
    with pytest.raises(RegrowError, match=r"has no adapter_config\.json.*\n.*download it first"):
        identity(tmp_path / "nothing")
    with pytest.raises(RegrowError, match="what this run writes"):
        identity(REPOSITORY.data / "trained")
    for change, wrong in (({"peft_type": "LOHA"}, "peft_type LOHA"), ({"init_lora_weights": "pissa"}, "changed the base model too")):
        with pytest.raises(RegrowError, match=wrong):
            identity(write(tmp_path / "adapter", **change))
    (tmp_path / "adapter" / "adapter_config.json").write_text("{")
    with pytest.raises(RegrowError, match="cannot be read"):
        identity(tmp_path / "adapter")

"""Quantisation-aware training: what is trained is the rounded model, and quantize writes just that one."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from pipeline.errors import Interrupted, RegrowError
from pipeline.options.views import RecipeOptions, TrainOptions
from stages.quantize import STAGE as QUANTIZE
from stages.train.model.qat import simulate_rounding
from tests.tiny import MINIMAL, run_stage
from tests.train.workspace import FULL, SignalAt, finished, pairs, read_log, train

INT4: dict[str, Any] = {"weight_dtype": "int4"}
DYNAMIC: dict[str, Any] = {"weight_dtype": "int4", "activation_dtype": "int8", "group_size": 64}
EMBEDDED = DYNAMIC | {"quantize_embedding": True}
LEARNING = FULL | {"learning_rate": 1e-3, "logging_steps": 1}


def losses(workspace: Path, qat: dict[str, Any] | None) -> list[float]:
    return [line["loss"] for line in finished(workspace, LEARNING | ({} if qat is None else {"qat": qat})).log]


@pytest.mark.shows("qat.weight_dtype", "qat.activation_dtype", "qat.group_size", "qat.quantize_embedding")
def test_every_setting_is_another_run(workspace: Path) -> None:
    runs = [losses(workspace, qat) for qat in (None, INT4, INT4 | {"group_size": 64}, DYNAMIC, EMBEDDED)]
    assert len({run[0] for run in runs}) == len(runs), "the first step computes with rounded weights already"
    assert all(abs(run[-1] - runs[0][-1]) < 0.2 for run in runs)


@pytest.mark.shows("qat.fake_quant_after_n_steps")
def test_it_begins_after_the_steps_that_it_is_told(workspace: Path) -> None:
    plain, later, never = losses(workspace, None), losses(workspace, INT4 | {"fake_quant_after_n_steps": 2}), INT4
    assert later[:2] == plain[:2] and later[2] != plain[2]
    assert losses(workspace, never | {"fake_quant_after_n_steps": 6}) == plain
    assert losses(workspace, INT4 | {"fake_quant_after_n_steps": 0}) == losses(workspace, INT4)


@pytest.mark.parametrize("step", [1, 3])
def test_a_killed_run_goes_on_to_the_same_bytes(workspace: Path, step: int) -> None:
    options = LEARNING | {"qat": EMBEDDED | {"fake_quant_after_n_steps": 2}}
    expected = finished(workspace, options)
    with pytest.raises(Interrupted):
        train(workspace, options, progress=SignalAt(step, signal.SIGTERM))
    trained, _ = train(workspace, options)
    assert trained.files == expected.files and read_log(trained) == expected.log


@pytest.mark.parametrize(("qat", "name"), [
    (INT4, "int4-g32"), (DYNAMIC, "int4-g64-aint8"), (EMBEDDED, "int4-g64-aint8-embeddings"),
])  # fmt: skip
def test_what_quantize_writes_computes_as_the_model_in_training(workspace: Path, qat: dict[str, Any], name: str) -> None:
    trained, _ = train(workspace, LEARNING | {"qat": qat, "num_epochs": 1})
    config = json.loads((trained.path / "config.json").read_text())
    assert "quantization_config" not in config, "what is saved are the weights as they are"
    shutil.copytree(trained.path, workspace / "data" / "merged")
    outputs, metrics = run_stage(QUANTIZE, workspace, {"quantize": [], "qat": qat})
    assert list(metrics) == [name]
    after = AutoModelForCausalLM.from_pretrained(outputs["quantized"].path / name)
    prepared = AutoModelForCausalLM.from_pretrained(trained.path)
    simulate_rounding(prepared, TrainOptions.model_validate(RecipeOptions.model_validate(MINIMAL | {"qat": qat}).model_dump()))
    ids = torch.arange(40)[None] * 7 % 259
    with torch.no_grad():
        computed, expected = after(ids).logits, prepared(ids).logits
        plain = AutoModelForCausalLM.from_pretrained(trained.path)(ids).logits
    assert (computed - expected).abs().max() < 0.05 * (computed - plain).abs().max()


def test_groups_that_do_not_fill_rows(tmp_path: Path) -> None:
    with pytest.raises(RegrowError, match=r"qat: groups of 48 .*q_proj\.weight, which have 64") as caught:
        train(pairs(tmp_path), FULL | {"qat": INT4 | {"group_size": 48}})
    assert "group_size can be 64, 32, 16, 8" in str(caught.value)

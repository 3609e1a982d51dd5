"""Preference training is training like any other: repeatable, resumable, exact in its measurements, and never on the network."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from pipeline.errors import Interrupted, RegrowError
from pipeline.models import load_causal_lm
from pipeline.options.views import TrainOptions
from stages.train.preference.settings import method_of
from stages.train.preference.trainers import check_recomputation, check_shares
from stages.train.preference.trl_trainers import CPOTrainer, DPOTrainer, KTOTrainer, ORPOTrainer, RewardTrainer
from tests.tiny import publish_bins
from tests.train.preferences import FULL, LORA, build, feedback_rows, pair_rows, step_rows
from tests.train.workspace import Heard, SignalAt, make_rows, read_log, train
from tests.train.workspace import build as build_texts

ROOT = Path(__file__).parents[2]

KINDS: dict[str, dict[str, Any]] = {
    "dpo": {"rl": "dpo"},
    "kto": {"rl": "kto"},
    "orpo": {"rl": "orpo"},
    "simpo": {"rl": "simpo"},
    "reward": {"reward_model": True},
    "steps": {"process_reward_model": True},
}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What each kind is trained from, made once."""
    folder = tmp_path_factory.mktemp("published")
    made = {
        name: build(folder / name, rows(), classifier_dropout=0.0)
        for name, rows in (("pairs", pair_rows), ("feedback", feedback_rows), ("steps", step_rows))
    }
    return {kind: made["feedback" if kind == "kto" else "steps" if kind == "steps" else "pairs"] for kind in KINDS}


class Place:
    """Copies of a kind's workspace, and runs in them."""

    def __init__(self, published: dict[str, Path], tmp_path: Path) -> None:
        self._published, self._tmp_path, self._count = published, tmp_path, 0

    def copy(self, kind: str) -> Path:
        self._count += 1
        workspace = self._tmp_path / str(self._count)
        shutil.copytree(self._published[kind] / "data", workspace / "data", ignore=shutil.ignore_patterns("trained"))
        return workspace

    def run(self, kind: str, options: dict[str, Any], **keywords: Any) -> Any:
        return train(self.copy(kind), options | KINDS[kind], **keywords)[0]


@pytest.fixture
def place(published: dict[str, Path], tmp_path: Path) -> Place:
    return Place(published, tmp_path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [LORA | {"lora_dropout": 0.2}, FULL], ids=["lora", "full"])
def test_stopped_and_resumed_it_ends_with_the_same_bytes(place: Place, kind: str, options: dict[str, Any]) -> None:
    """Two undisturbed steps and two after a stop are the four of a run that nobody stopped; evaluations included."""
    options = options | {"eval_steps": 1, "save_steps": 4} | ({"rl_beta": None} if "rl" not in KINDS[kind] else {})
    expected = place.run(kind, options)
    workspace = place.copy(kind)
    with pytest.raises(Interrupted):
        train(workspace, options | KINDS[kind], progress=SignalAt(2, signal.SIGTERM))
    heard = Heard()
    resumed, _ = train(workspace, options | KINDS[kind], progress=heard)
    assert heard.said[0].startswith("Continuing from the checkpoint of step 2 of 4")
    assert resumed.files == expected.files and len(read_log(expected)) == 4


@pytest.mark.parametrize("kind", ["dpo", "simpo", "reward", "steps"])
def test_every_row_of_a_step_counts_the_same(place: Place, kind: str) -> None:
    """However it is cut into micro-batches, unless a loss is itself one of micro-batches: KTO's divergence, likelihoods."""
    options = FULL | KINDS[kind] | {"cpo_alpha": 0}
    logs = [
        read_log(place.run(kind, options | {"micro_batch_size": micro, "gradient_accumulation_steps": steps, "logging_steps": 1}))
        for micro, steps in ((4, 1), (3, 1), (1, 4))
    ]
    assert [line["step"] for line in logs[1]] == [1, 2, 3, 4, 5, 6], "three steps an epoch, the last of two rows"
    for name in ("loss", "grad_norm"):
        whole, single = ([line[name] for line in log] for log in (logs[0], logs[2]))
        assert whole == pytest.approx(single, rel=1e-4)


@pytest.mark.parametrize("options", [{"dpo_loss_type": ["sigmoid", "sft", "aot"]}, {"rl": "kto"}, {"rl": "simpo"}], ids=str)
def test_held_out_measurements_do_not_depend_on_batches(place: Place, options: dict[str, Any]) -> None:
    kind = options.get("rl", "dpo")
    found = [read_log(place.run(kind, FULL | options | {"eval_steps": 2, "eval_batch_size": size}), "eval.csv") for size in (1, 2, 5)]
    for line, *others in zip(*found, strict=True):
        for other in others:
            assert other == pytest.approx(line, rel=1e-4, abs=1e-5)


@pytest.mark.shows("precompute_ref_log_probs")
@pytest.mark.parametrize("options", [FULL, LORA, LORA | {"peft_init_lora_weights": False}], ids=["full", "lora", "lora from noise"])
def test_the_reference_is_the_model_as_it_begins(place: Place, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]) -> None:
    """A resized vocabulary, a noisy adapter: asked beforehand or at every step, it is what is trained, before it is trained."""
    from stages.train.preference import reference

    copies: list[Any] = []

    def copied(model: Any) -> Any:
        copies.append(deepcopy(model))
        return copies[-1]

    monkeypatch.setattr(reference, "deepcopy", copied)
    options = options | {"eval_steps": 2, "logging_steps": 1}
    asked = place.run("dpo", options)
    assert read_log(asked)[0]["loss"] == pytest.approx(np.log(2), rel=1e-5)
    assert len(copies) == (0 if options.get("adapter") and "peft_init_lora_weights" not in options else 1)
    if "peft_init_lora_weights" in options:
        return
    known = place.run("dpo", options | {"precompute_ref_log_probs": True})
    for name in ("log.csv", "eval.csv"):
        for one, other in zip(read_log(asked, name), read_log(known, name), strict=True):
            assert one == pytest.approx(other, rel=1e-4, abs=1e-5)


def test_a_noisy_adapter_cannot_be_switched_off_for_the_reference(place: Place) -> None:
    options = LORA | {"peft_init_lora_weights": False, "precompute_ref_log_probs": True, "logging_steps": 1}
    assert read_log(place.run("dpo", options))[0]["loss"] == pytest.approx(np.log(2), rel=1e-5)


def test_what_is_given_out_is_what_a_text_model_is(place: Place) -> None:
    """No second adapter, no pad token that the base model does not have, nothing of TRL's."""
    workspace = place.copy("dpo")
    config = workspace / "data/base/config.json"
    full, _ = train(workspace, FULL | {"rl": "dpo"})
    lora = place.run("dpo", LORA)
    base = json.loads(config.read_text())
    assert {key: value for key, value in json.loads((full.path / "config.json").read_text()).items() if base.get(key) != value} == {}
    assert sorted(name for name in lora.files if "/" in name or "ref" in name) == []
    assert {"adapter_config.json", "adapter_model.safetensors", "log.csv"} <= set(lora.files)
    assert "\n- dpo\n" in (lora.path / "README.md").read_text(encoding="utf-8")
    assert not any("ref" in name for name in load_file(lora.path / "adapter_model.safetensors"))


def test_trl_tells_nobody(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    import trl.trainer.base_trainer

    def told(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was used")

    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(trl.trainer.base_trainer, "send_telemetry", told)
    monkeypatch.setattr(trl.trainer.base_trainer, "generate_model_card", told)
    place.run("dpo", FULL | {"max_steps": 1})


@pytest.mark.parametrize("kind", ["reward", "steps"])
def test_a_judge_with_an_adapter_is_given_out_whole(place: Place, kind: str) -> None:
    """The head that judges is trained with the adapter, and ``type_of_model`` may say what Axolotl's examples say."""
    name = "AutoModelForSequenceClassification" if kind == "reward" else "AutoModelForTokenClassification"
    trained = place.run(kind, LORA | {"rl_beta": None, "eval_steps": 2, "type_of_model": name})
    opens: Any = AutoModelForSequenceClassification if kind == "reward" else AutoModelForTokenClassification
    model, info = opens.from_pretrained(trained.path, local_files_only=True, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert trained.content["kind"] == "full" and "adapter_config.json" not in trained.files
    with pytest.raises(RegrowError, match=f"is a {type(model).__name__}, which judges text"):
        load_causal_lm(trained.path)
    assert model.score.weight.abs().sum() > 0 and "lora" not in str(load_file(trained.path / "model.safetensors").keys())


@pytest.mark.shows("process_reward_model")
def test_judged_rows_can_share_a_bin(place: Place) -> None:
    """The same steps of optimisation, row by row or packed: rows do not see each other."""
    alone, packed = place.copy("steps"), place.copy("steps")
    publish_bins(packed / "data", [[0, 1], [2, 3], [4, 5], [6, 7]], [[8, 9, 10], [11, 12]])
    options = FULL | {"process_reward_model": True, "rl_beta": None, "eval_steps": 1, "num_epochs": 1, "curriculum_sampling": True}
    one, _ = train(alone, options)
    other, _ = train(packed, options | {"micro_batch_size": 1})
    for left, right in zip(read_log(one, "eval.csv"), read_log(other, "eval.csv"), strict=True):
        assert left["eval_loss"] == pytest.approx(right["eval_loss"], rel=1e-4)


def test_rows_of_another_training_are_refused(tmp_path: Path) -> None:
    texts = build_texts(tmp_path, make_rows(4), [[number] for number in range(4)])
    with pytest.raises(RegrowError, match="no pairs of answers"):
        train(texts, FULL | {"rl": "dpo"})
    with pytest.raises(RegrowError, match="no labels"):
        train(texts, FULL | {"rl": "kto"})


def test_an_adapter_on_the_output_head_is_refused(place: Place) -> None:
    with pytest.raises(RegrowError, match="output head"):
        place.run("dpo", LORA | {"lora_target_linear": False, "lora_target_modules": ["lm_head"]})


@pytest.mark.shows("dpo_use_liger_kernel")
@pytest.mark.skipif(torch.cuda.is_available(), reason="what a machine without CUDA says")
def test_liger_needs_a_gpu(place: Place) -> None:
    with pytest.raises(RegrowError, match="dpo_use_liger_kernel: true needs a CUDA device"):
        place.run("dpo", FULL | {"dpo_use_liger_kernel": True})


@pytest.mark.parametrize(
    ("options", "beta"),
    [
        ({"rl": "dpo"}, None),
        ({"rl": "dpo", "rl_beta": 0.3}, 0.3),
        ({"rl": "dpo", "trl": {"beta": 0.2}}, 0.2),
        ({"rl": "orpo", "orpo_alpha": 0.4}, 0.4),
    ],
)
def test_one_number_has_three_names(options: dict[str, Any], beta: float | None) -> None:
    settings = method_of(TrainOptions.model_validate({"learning_rate": 1e-3} | options)).settings
    assert settings.get("beta") == beta


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "alike"),
    [("dpo", {"micro_batch_size": 2, "gradient_accumulation_steps": 2}), ("kto", {"micro_batch_size": 4})],
    ids=["dpo", "kto"],  # KTO's divergence is one of the rows that all processes have at a time
)
def test_two_processes_compare_like_one(place: Place, kind: str, alike: dict[str, Any]) -> None:
    """The same rows in the same steps."""
    shared = KINDS[kind] | {"num_epochs": 2, "rl_beta": 0.5, "learning_rate": 1e-2, "logging_steps": 1, "eval_steps": 2}
    together = place.copy(kind)
    publish_bins(together / "data", [[number] for number in range(8)], [[number] for number in range(8, 12)])
    alone = together.with_name("alone")
    shutil.copytree(together, alone)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "tests.train.child"]
    options = json.dumps(shared | {"micro_batch_size": 2})
    subprocess.run([*command, str(together), options], cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True, timeout=300)
    one, _ = train(alone, shared | alike)
    for name in ("log.csv", "eval.csv"):
        header, *lines = (together / "trained-0" / name).read_text().splitlines()
        for line, expected in zip(lines, read_log(one, name), strict=True):
            assert dict(zip(header.split(","), map(float, line.split(",")), strict=True)) == pytest.approx(expected, rel=1e-3, abs=1e-4)
    weights = load_file(together / "trained-0" / "model.safetensors")
    for name, weight in load_file(one.path / "model.safetensors").items():
        torch.testing.assert_close(weights[name], weight, atol=1e-4, rtol=1e-3)


def test_recomputation_that_asks_for_gradients_twice_is_refused() -> None:
    few_bits = {"learning_rate": 1e-3, "rl": "dpo", "adapter": "qlora", "load_in_4bit": True, "gradient_checkpointing": True}
    options = TrainOptions.model_validate(few_bits | {"gradient_checkpointing_kwargs": {"use_reentrant": True}})
    check_recomputation(options, 1)
    with pytest.raises(RegrowError, match="use_reentrant"):
        check_recomputation(options, 2)


def test_trl_still_has_what_is_built_on() -> None:
    """Every import from TRL stands in one module, and what is overridden there is still called so."""
    root = Path(__file__).parents[2]
    users = {path.name for path in root.glob("stages/**/*.py") if re.search(r"^\s*(from|import) trl\b", path.read_text(), re.MULTILINE)}
    assert users <= {"trl_trainers.py", "trl_grpo.py"}
    for kind in (DPOTrainer, KTOTrainer, RewardTrainer):
        assert {"_prepare_dataset", "compute_loss", "log", "_send_telemetry", "create_model_card"} <= set(dir(kind))
    assert {"compute_ref_log_probs"} <= set(dir(DPOTrainer)) and {"_compute_kl_logps"} <= set(dir(KTOTrainer))
    for odds in (ORPOTrainer, CPOTrainer):
        assert {"compute_loss", "store_metrics", "concatenated_forward"} <= set(dir(odds))


@pytest.mark.parametrize(("rows", "held_out", "says"), [(7, 4, "dataloader_drop_last"), (8, 5, "val_set_size")])
def test_rows_that_processes_cannot_share_are_refused(rows: int, held_out: int, says: str) -> None:
    arguments = SimpleNamespace(world_size=2, per_device_train_batch_size=2)
    check_shares(arguments, 8, 4, drop_last=False)
    with pytest.raises(RegrowError, match=says):
        check_shares(arguments, rows, held_out, drop_last=False)

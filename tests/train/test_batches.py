"""Batches: sizes that follow from each other, and the size that fits into memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.errors import Interrupted, RegrowError
from pipeline.options.views import TrainOptions
from stages.train.data.batch_sizes import halved, settle_batches
from stages.train.trainer import BinTrainer
from tests.train.workspace import FULL, LORA, Heard, finished, read_log, train


def view(**options: Any) -> TrainOptions:
    return TrainOptions.model_validate({"learning_rate": 1e-3} | options)


@pytest.mark.shows("batch_size")
def test_batch_size_gives_the_accumulation(published: Path, workspace: Path) -> None:
    options = {name: value for name, value in FULL.items() if name != "gradient_accumulation_steps"}
    trained, metrics = train(workspace, options | {"batch_size": 4})
    assert metrics["steps"] == 6
    for name in ("log.csv", "model.safetensors"):
        assert trained.files[name] == finished(published, FULL).files[name]


def test_batch_size_is_that_of_all_processes() -> None:
    assert settle_batches(view(batch_size=24, micro_batch_size=2), 3).gradient_accumulation_steps == 4
    with pytest.raises(RegrowError, match="batch_size 24 is not a multiple of 10 rows, which 5 processes") as caught:
        settle_batches(view(batch_size=24, micro_batch_size=2), 5)
    assert "batch_size: 20" in str(caught.value.remedy)


@pytest.mark.parametrize(
    ("micro", "accumulation", "steps"), [(8, 1, [(4, 2), (2, 4), (1, 8)]), (6, 2, [(3, 4), (1, 12)]), (9, 1, [(3, 3)])]
)
def test_a_smaller_micro_batch_keeps_the_global_batch(micro: int, accumulation: int, steps: list[tuple[int, int]]) -> None:
    options = view(micro_batch_size=micro, gradient_accumulation_steps=accumulation)
    for expected in steps:
        options = halved(options)
        assert (options.micro_batch_size, options.gradient_accumulation_steps) == expected


@pytest.fixture
def room_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the third step on, memory for one bin at a time."""
    plain = BinTrainer.training_step

    def training_step(trainer: BinTrainer, model: Any, inputs: dict[str, torch.Tensor], *rest: Any) -> torch.Tensor:
        if len(inputs["input_ids"]) > 1 and trainer.state.global_step >= 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return plain(trainer, model, inputs, *rest)

    monkeypatch.setattr(BinTrainer, "training_step", training_step)


@pytest.mark.shows("auto_find_batch_size")
def test_the_batch_that_fits_is_found(published: Path, workspace: Path, room_for_one: None) -> None:
    """The result is that of a run which had been told so, though checkpoints of the larger batch were there already."""
    options = LORA | {"save_steps": 1, "auto_find_batch_size": True, "micro_batch_size": 4, "gradient_accumulation_steps": 1}
    heard = Heard()
    trained, metrics = train(workspace, options, progress=heard)
    expected = finished(published, LORA | {"save_steps": 1, "micro_batch_size": 1, "gradient_accumulation_steps": 4})
    assert trained.files["log.csv"] == expected.files["log.csv"]
    assert trained.files["adapter_model.safetensors"] == expected.files["adapter_model.safetensors"]
    assert metrics["micro_batch_size"] == 1
    assert [said.rsplit(" ", 1)[1] for said in heard.said] == ["2.", "1."]


def test_a_resumed_run_knows_the_batch_that_fits(workspace: Path, room_for_one: None, monkeypatch: pytest.MonkeyPatch) -> None:
    options = FULL | {"save_steps": 1, "auto_find_batch_size": True}

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr("stages.train.session._write", interrupt)
        train(workspace, options, progress=Heard())
    heard = Heard()
    assert train(workspace, options, progress=heard)[1]["micro_batch_size"] == 1
    assert heard.said == ["Continuing from the checkpoint of step 6 of 6."]


@pytest.mark.parametrize(("options", "works"), [
    ({}, "micro_batch_size: 1 and gradient_accumulation_steps: 4, or auto_find_batch_size: true"),
    ({"micro_batch_size": 1}, "gradient_checkpointing: true"),
    ({"micro_batch_size": 1, "auto_find_batch_size": True}, "gradient_checkpointing: true"),
])  # fmt: skip
def test_too_little_memory_is_said_in_a_line(workspace: Path, monkeypatch: Any, options: dict[str, Any], works: str) -> None:
    def training_step(*_: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(BinTrainer, "training_step", training_step)
    with pytest.raises(RegrowError, match=r"Memory ran out with micro_batch_size [12]: CUDA out of memory") as caught:
        train(workspace, FULL | options)
    assert works in str(caught.value.remedy)


def test_other_errors_are_not_taken_for_it(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def training_step(*_: Any) -> torch.Tensor:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(BinTrainer, "training_step", training_step)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        train(workspace, FULL | {"auto_find_batch_size": True})


def test_several_processes_do_not_look_for_it() -> None:
    with pytest.raises(RegrowError, match="auto_find_batch_size: true, and 2 processes"):
        settle_batches(view(auto_find_batch_size=True), 2)


@pytest.mark.shows("num_epochs", "max_steps", "micro_batch_size", "gradient_accumulation_steps", "logging_steps")
@pytest.mark.parametrize(("options", "epochs", "lines"), [
    ({"num_epochs": 1.5}, 1.5, [1, 2, 3]),
    ({"num_epochs": 0.3}, 0.5, [1]),
    ({"max_steps": 5, "logging_steps": 2}, 2.5, [2, 4, 5]),
    ({"gradient_accumulation_steps": 1, "num_epochs": 1}, 1, [1, 2, 3, 4]),
    ({"micro_batch_size": 4, "num_epochs": 1}, 1, [1]),
])  # fmt: skip
def test_parts_of_epochs(workspace: Path, options: dict[str, Any], epochs: float, lines: list[int]) -> None:
    trained, metrics = train(workspace, FULL | options)
    assert metrics["epochs"] == epochs
    assert [line["step"] for line in read_log(trained)] == lines


@pytest.mark.shows("warmup_steps")
@pytest.mark.parametrize(("warmup", "said"), [(5, 0), (6, 1), (100, 1)])
def test_a_warmup_that_does_not_end_is_mentioned(workspace: Path, warmup: int, said: int) -> None:
    heard = Heard()
    train(workspace, FULL | {"warmup_steps": warmup}, progress=heard)
    assert sum(f"Warm-up takes {warmup} steps and the run has 6" in line for line in heard.said) == said

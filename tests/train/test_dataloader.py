"""How batches reach the model: in which order and by how many processes."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import Interrupted
from pipeline.options.views import TrainOptions
from pipeline.order import BinOrder
from stages.train.arguments import training_arguments
from stages.train.launch import Launch
from stages.train.loop.schedule import plan_schedule
from tests.train.workspace import FULL, SignalAt, build, finished, make_rows, read_log, train

GROUPED: dict[str, Any] = FULL | {"group_by_length": True, "dataloader_drop_last": True}


def view(**options: Any) -> TrainOptions:
    return TrainOptions.model_validate({"learning_rate": 1e-3} | options)


def odd(workspace: Path) -> Path:
    """Nine bins of one row each."""
    return build(workspace, make_rows(9, seed=2), [[number] for number in range(9)])


@pytest.mark.shows("group_by_length")
def test_bins_of_a_batch_are_alike_in_length() -> None:
    lengths = np.random.default_rng(0).integers(10, 2000, 400)
    plain, grouped = (BinOrder.asked(view(micro_batch_size=4, group_by_length=group), lengths, 1) for group in (False, True))
    for epoch in range(2):
        orders = [lengths[order.of_epoch(epoch)].reshape(-1, 4) for order in (plain, grouped)]
        padding = [int((batches.max(axis=1, keepdims=True) - batches).sum()) for batches in orders]
        assert padding[1] < padding[0] / 10
        assert sorted(grouped.of_epoch(epoch)) == list(range(400))
    assert not np.array_equal(grouped.of_epoch(0), grouped.of_epoch(1))


@pytest.mark.shows("dataloader_drop_last")
def test_a_batch_that_is_not_full_is_left_out(tmp_path: Path) -> None:
    options = {"num_epochs": 2, "micro_batch_size": 2}
    steps = [read_log(train(odd(tmp_path / str(drop)), options | {"dataloader_drop_last": drop})[0])[-1]["step"] for drop in (False, True)]
    assert steps == [10, 8]


@pytest.mark.parametrize("step", [1, 4])
def test_a_run_with_both_goes_on_to_the_same_bytes(tmp_path: Path, step: int) -> None:
    expected = train(odd(tmp_path / "whole"), GROUPED)[0].files
    workspace = odd(tmp_path / "stopped")
    with pytest.raises(Interrupted):
        train(workspace, GROUPED, progress=SignalAt(step, signal.SIGTERM))
    assert train(workspace, GROUPED)[0].files == expected
    assert expected["log.csv"] != train(odd(tmp_path / "plain"), FULL)[0].files["log.csv"]


@pytest.mark.shows("dataloader_num_workers", "dataloader_prefetch_factor", "remove_unused_columns")
@pytest.mark.parametrize(
    "options",
    [{"dataloader_num_workers": 2, "dataloader_prefetch_factor": 1}, {"remove_unused_columns": True}, {"remove_unused_columns": False}],
)
def test_who_prepares_batches_changes_no_byte(published: Path, workspace: Path, options: dict[str, Any]) -> None:
    trained, _ = train(workspace, FULL | options)
    expected = finished(published, FULL).files
    assert {name: record for name, record in trained.files.items() if name != "README.md"} == {
        name: record for name, record in expected.items() if name != "README.md"
    }


@pytest.mark.shows("dataloader_pin_memory", "accelerator_config.non_blocking")
def test_what_only_a_gpu_has_reaches_transformers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def arguments(**options: Any) -> Any:
        return training_arguments(view(**options), plan_schedule(view(**options), 10, 1), "fp32", Launch(0, 1), tmp_path)

    assert not arguments(dataloader_pin_memory=True).dataloader_pin_memory, "there is nothing to copy to"
    assert arguments(accelerator_config={"non_blocking": True}).accelerator_config.non_blocking
    assert not arguments().accelerator_config.non_blocking
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("transformers.TrainingArguments.__post_init__", lambda self: setattr(self, "_n_gpu", 1))
    assert arguments().dataloader_pin_memory
    assert not arguments(dataloader_pin_memory=False).dataloader_pin_memory

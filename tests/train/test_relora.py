"""ReLoRA: what restarts add up to is more than one adapter can hold, and can be resumed on both sides of a restart."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

import stages.train.adapters.relora as relora
from pipeline.errors import Interrupted, RegrowError
from tests.train.workspace import FULL, SignalAt, finished, train

JAGGED: dict[str, Any] = {"jagged_restart_steps": 2, "jagged_restart_warmup_steps": 0, "jagged_restart_anneal_steps": 0}
LORA: dict[str, Any] = FULL | {"adapter": "lora", "lora_r": 1, "lora_target_modules": ["q_proj"], "learning_rate": 1e-2}
RELORA = LORA | JAGGED | {"relora": True}
Q = "model.layers.0.self_attn.q_proj.weight"


@pytest.mark.shows("relora")
def test_restarts_add_up(workspace: Path) -> None:
    """Six steps, restarts after two and four: three products of rank one."""
    trained, metrics = train(workspace, RELORA)
    assert metrics["kind"] == "full"
    before, now = (load_file(folder / "model.safetensors") for folder in (workspace / "data" / "base", trained.path))
    singular = torch.linalg.svdvals((now[Q] - before[Q]).double())
    assert int((singular > 1e-3 * singular[0]).sum()) == 3
    assert {name for name in before if not now[name].equal(before[name])} == {Q, Q.replace(".0.", ".1.")}


def test_a_restart_changes_nothing_by_itself(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[tuple[torch.Tensor, torch.Tensor]] = []
    restart = relora.ReLoRA._restart

    def watched(self: Any, number: int, optimizer: Any) -> None:
        layers = self._layers
        before = [layer.get_base_layer().weight + layer.get_delta_weight("default") for layer in layers]
        restart(self, number, optimizer)
        found.extend(zip(before, [layer.get_base_layer().weight + layer.get_delta_weight("default") for layer in layers], strict=True))

    monkeypatch.setattr(relora.ReLoRA, "_restart", watched)
    train(workspace, RELORA)
    assert len(found) == 4 and all(torch.equal(before, after) for before, after in found)


@pytest.mark.parametrize("step", [2, 3, 4, 5])
def test_a_stopped_run_ends_with_the_same_bytes(published: Path, workspace: Path, step: int) -> None:
    with pytest.raises(Interrupted, match=f"step {step} of 6"):
        train(workspace, RELORA, progress=SignalAt(step, signal.SIGTERM))
    assert train(workspace, RELORA)[0].files == finished(published, RELORA).files


@pytest.mark.shows("relora_prune_ratio")
def test_the_optimizer_forgets(published: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zeros = []
    prune = relora.prune

    def watched(state: dict[str, Any], shape: torch.Size, ratio: float) -> None:
        prune(state, shape, ratio)
        zeros.append((state["exp_avg"] == 0).double().mean().item())

    monkeypatch.setattr(relora, "prune", watched)
    forgetful, _ = train(workspace, RELORA | {"relora_prune_ratio": 0.75})
    assert len(zeros) == 8 and all(share >= 0.75 for share in zeros) and min(zeros) == 0.75
    assert forgetful.files["model.safetensors"] != finished(published, RELORA).files["model.safetensors"]


@given(values=st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=60), ratio=st.floats(0, 1))
def test_the_smallest_moments_are_cut(values: list[float], ratio: float) -> None:
    moment = torch.tensor(values)
    kept = moment.clone()
    relora.prune({"exp_avg": moment, "step": torch.tensor(3.0)}, kept.shape, ratio)
    cut = int(ratio * len(values))
    order = kept.abs().sort().values
    assert (moment[moment != 0].abs() > (order[cut - 1] if cut else -1)).all()
    assert int((moment == 0).sum()) >= cut
    assert moment[moment != 0].tolist() == [value for value, left in zip(kept.tolist(), moment.tolist(), strict=True) if left != 0]


@pytest.mark.shows("relora_cpu_offload")
def test_merging_on_the_cpu_adds_the_same(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine without a GPU both ways are the CPU; the other way of computing is what is looked at."""
    asked = []
    delta = relora.delta

    def watched(layer: Any, *, on_cpu: bool) -> torch.Tensor:
        asked.append(on_cpu)
        there, here = delta(layer, on_cpu=False), delta(layer, on_cpu=True)
        torch.testing.assert_close(there, here)
        assert here.device.type == "cpu"
        return here if on_cpu else there

    monkeypatch.setattr(relora, "delta", watched)
    train(workspace, RELORA | {"relora_cpu_offload": True, "lora_target_modules": ["q_proj", "down_proj"]})
    assert asked == [True] * 8


def test_tied_ends_are_not_merged_into(workspace: Path) -> None:
    with pytest.raises(RegrowError, match=r"relora changes the base weights.*one weight.*\n.*lora_modules_to_save"):
        train(workspace, RELORA | {"lora_target_modules": ["lm_head"]})

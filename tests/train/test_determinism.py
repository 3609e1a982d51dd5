"""What can be had again is asked for, said, and nothing that a user set is changed."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from stages.train.attention import repeatable, varlen
from stages.train.determinism import determinism
from tests.train.workspace import FULL, train


@pytest.fixture(autouse=True)
def mode() -> Iterator[None]:
    before = torch.get_deterministic_debug_mode()
    yield
    torch.set_deterministic_debug_mode(before)


def put(target: torch.Tensor) -> None:
    """An operation that has no deterministic form on any device."""
    target.put_(torch.tensor([0]), torch.ones(1))


def test_a_run_on_a_cpu_can_be_had_again_on_its_kind(workspace: Path) -> None:
    observed: dict[str, Any] = {}
    train(workspace, FULL | {"max_steps": 1}, observed=observed)
    report = observed["determinism"]
    assert (report["level"], report["prevented"]) == ("L1", [])
    assert report["holds_on"]["cpu"] == torch.backends.cpu.get_cpu_capability() and report["holds_on"]["processes"] == 1


def test_an_operation_that_may_differ_is_named_and_lowers_the_level() -> None:
    with determinism() as found:
        put(torch.zeros(2))
        put(torch.zeros(2))
    assert found.report()["level"] is None
    assert found.report()["prevented"] == ["put_ has no deterministic implementation"]


def test_only_while_it_lasts() -> None:
    settings: Any = torch.utils.deterministic
    fill = settings.fill_uninitialized_memory
    with determinism():
        assert torch.are_deterministic_algorithms_enabled() and torch.is_deterministic_algorithms_warn_only_enabled()
    assert not torch.are_deterministic_algorithms_enabled()
    assert settings.fill_uninitialized_memory == fill


def test_who_asked_for_errors_gets_them() -> None:
    torch.use_deterministic_algorithms(True)
    with determinism(), pytest.raises(RuntimeError, match="put_ does not have a deterministic implementation"):
        put(torch.zeros(2))
    assert torch.get_deterministic_debug_mode() == 2


def test_other_warnings_are_heard_as_before() -> None:
    with pytest.warns(UserWarning, match="something else"), determinism() as found:
        warnings.warn("something else", UserWarning, stacklevel=1)
    assert found.prevented == []


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As on a machine with a GPU, as far as settings go."""
    started: list[str] = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: bool(started))
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: started.append("for its name") or "NVIDIA H200")  # as torch's does
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.delenv("FLASH_ATTENTION_DETERMINISTIC", raising=False)
    yield
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
    os.environ.pop("FLASH_ATTENTION_DETERMINISTIC", None)


@pytest.mark.usefixtures("gpu")
def test_a_gpu_gets_what_it_needs_before_it_starts() -> None:
    with determinism(world_size=2) as found:
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert found.report()["level"] == "L2" and found.holds_on["gpu"] == "NVIDIA H200" and found.holds_on["processes"] == 2


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(("name", "value"), [("CUBLAS_WORKSPACE_CONFIG", ":0:0"), ("FLASH_ATTENTION_DETERMINISTIC", "0")])
def test_what_was_set_stays_and_is_said(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with determinism() as found:
        assert os.environ[name] == value
    assert found.report()["level"] is None and name in found.prevented[0]


def test_attention_alone_is_computed_strictly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fused kernels are deterministic only while anything else would be an error, for which one CPU kernel stands here."""
    monkeypatch.setattr(repeatable, "_wanted", lambda tensor: torch.get_deterministic_debug_mode() == 1)
    modes: list[int] = []

    def unpack(tensor: torch.Tensor) -> torch.Tensor:
        modes.append(torch.get_deterministic_debug_mode())
        return tensor

    query, key, value = (torch.randn(9, 2, 8, requires_grad=True) for _ in range(3))
    found = varlen.Documents([4, 5], torch.tensor([0, 4, 9]), 5)
    with determinism(), torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, unpack):
        attended = varlen.one_by_one(query, key, value, found, dropout=0.0, scaling=None, window=None)
        assert torch.get_deterministic_debug_mode() == 1
        torch.autograd.backward(attended.exp().sum())
        assert torch.get_deterministic_debug_mode() == 1
    assert modes[0] == 1 and set(modes[1:]) == {2} and len(modes) > 8


@pytest.mark.parametrize("kernel", ["Flash Attention", "Memory Efficient attention"])
def test_attention_that_was_not_deterministic_lowers_the_level(kernel: str) -> None:
    with determinism() as found:
        warnings.warn(f"{kernel} defaults to a non-deterministic algorithm. To explicitly enable determinism call", stacklevel=1)
    assert found.report()["level"] is None and found.prevented == [f"{kernel} was not deterministic"]

"""Bit-identical repeats: what torch is asked for, what had been set before, and what stands in the way.

Nothing that a user set is changed: what contradicts is kept, and the run record says what it prevents. Levels are those of
``regrow reproduce``: L1, the same bytes on this kind of CPU; L2, the same bytes on this model of GPU.

Source: https://pytorch.org/docs/stable/notes/randomness.html
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch

from stages.train.attention.repeatable import WORKSPACES

_MEMORY = cast(Any, torch.utils.deterministic)  # which type checkers take for empty
_ALERT = re.compile(
    r"(?P<name>\S+) does not have a deterministic implementation|(?P<kernel>[\w ]+) defaults to a non-deterministic algorithm"
)
"""Of operations that have no other form, and of attention that would have one (:mod:`stages.train.attention.repeatable`)."""


@dataclass
class Determinism:
    """How far a run can be had again.

    Attributes:
        holds_on: what a machine must have in common with this one.
        prevented: what keeps the run from being bit-identical there; empty when nothing is known of.
    """

    holds_on: dict[str, Any]
    prevented: list[str] = field(default_factory=list)

    def report(self) -> dict[str, Any]:
        """For the run record."""
        level = None if self.prevented else "L2" if "gpu" in self.holds_on else "L1"
        return {"level": level, "holds_on": self.holds_on, "prevented": sorted(self.prevented)}

    def add(self, reason: str) -> None:
        """Something that prevents it, once."""
        if reason not in self.prevented:
            self.prevented.append(reason)


@contextmanager
def determinism(world_size: int = 1) -> Iterator[Determinism]:
    """Ask torch for deterministic algorithms for as long as the block lasts, and notice where it has none."""
    found = Determinism({})
    before = torch.get_deterministic_debug_mode(), _MEMORY.fill_uninitialized_memory
    if torch.cuda.is_available():
        _prepare_cuda(found)
    found.holds_on = _this_machine(world_size)  # asking a GPU for its name starts CUDA
    with warnings.catch_warnings():
        _listen(found)
        if before[0] == 0:  # who asked for warnings or errors has them
            torch.use_deterministic_algorithms(True, warn_only=True)
        # It guards against reading memory that nobody wrote, and costs a pass over every new tensor.
        _MEMORY.fill_uninitialized_memory = False
        try:
            yield found
        finally:
            torch.set_deterministic_debug_mode(before[0])
            _MEMORY.fill_uninitialized_memory = before[1]


def _this_machine(world_size: int) -> dict[str, Any]:
    machine: dict[str, Any] = {"torch": torch.__version__, "processes": world_size}
    if torch.cuda.is_available():
        return machine | {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    return machine | {"cpu": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads()}


def _prepare_cuda(found: Determinism) -> None:
    """cuBLAS reads its setting when it starts, flash-attn at every call."""
    workspace = os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    if workspace is None and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        found.add("CUDA was in use before CUBLAS_WORKSPACE_CONFIG could be set")
    elif workspace is None:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = WORKSPACES[0]
    elif workspace not in WORKSPACES:
        found.add(f"CUBLAS_WORKSPACE_CONFIG={workspace} was set; {' and '.join(WORKSPACES)} are deterministic")
    if os.environ.setdefault("FLASH_ATTENTION_DETERMINISTIC", "1") != "1":
        found.add("FLASH_ATTENTION_DETERMINISTIC was set to something other than 1")
    if torch.backends.cudnn.benchmark:
        found.add("torch.backends.cudnn.benchmark was set, which chooses kernels by their speed")


def _listen(found: Determinism) -> None:
    """Torch says by a warning when an operation has no deterministic form. Other warnings go where they went."""
    pass_on = warnings.showwarning

    def hear(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        alert = _ALERT.search(str(message))
        if alert:
            found.add(
                f"{alert['name']} has no deterministic implementation" if alert["name"] else f"{alert['kernel']} was not deterministic"
            )
        else:
            pass_on(message, category, *place, **more)

    for alert in ("does not have a deterministic implementation", "defaults to a non-deterministic algorithm"):
        warnings.filterwarnings("always", message=f".*{alert}", category=UserWarning)
    warnings.showwarning = hear

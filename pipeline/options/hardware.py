"""What can be known of this machine without loading a library."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path


@dataclass(frozen=True)
class Machine:
    """``gpu``: an NVIDIA GPU that programs may see. ``cpus``: CPUs this process may use."""

    gpu: bool = False
    cpus: int = 1

    def has_package(self, name: str) -> bool:
        """Whether a package is installed, without importing it."""
        return find_spec(name) is not None


def this_machine() -> Machine:
    """Looks for device files; an empty CUDA_VISIBLE_DEVICES hides them, as it does from CUDA."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1")
    return Machine(gpu=not hidden and any(Path("/dev").glob("nvidia[0-9]*")), cpus=len(os.sched_getaffinity(0)))

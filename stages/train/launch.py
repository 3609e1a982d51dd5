"""Which process of a launch this is. torchrun and `accelerate launch` say so in the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from pipeline.progress import Progress


@dataclass(frozen=True)
class Launch:
    """``rank`` of ``world_size`` processes; rank 0 alone writes and reports."""

    rank: int
    world_size: int

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0


def find_launch() -> Launch:
    """This process's place; a process that nobody launched is alone."""
    return Launch(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))


def take_gpu() -> None:
    """Make this process's GPU the current one, as accelerate does later: models in few bits are loaded onto the current one."""
    if torch.cuda.is_available() and find_launch().world_size > 1:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


class Silence(Progress):
    """The progress of processes that do not lead."""

    def say(self, message: str) -> None:
        """Nothing: the leading process says it."""

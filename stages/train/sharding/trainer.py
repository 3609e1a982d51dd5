"""A Trainer whose model FSDP shares out: checkpoints, and the norm of gradients, are of all processes together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers.trainer import SCHEDULER_NAME

from stages.train.sharding.shards import clip_gradients, optimizer_parts, restore_optimizer, restore_parts, trained_parts
from stages.train.sharding.units import put_back
from stages.train.sharding.weights import whole_weights
from stages.train.trainer import BinTrainer

_SHARDS = "shards"


class ShardedTrainer(BinTrainer):
    """Beside a whole model a checkpoint holds what each process has of the trained weights and of the optimizer's states.

    A run goes on from these, with as many processes.
    """

    def measure(self) -> dict[str, float]:
        """See :data:`stages.train.loop.evaluation.EVALUATED`."""
        measured = super().measure()
        put_back(self._module)
        return measured

    @property
    def _module(self) -> torch.nn.Module:
        assert isinstance(self.model, torch.nn.Module)
        return self.model

    @contextmanager
    def _defer_fsdp_gradient_reduction(self) -> Iterator[None]:
        """Gradients are shared out after every micro-batch: until the last one they would be whole on each process."""
        yield

    def _clip_grad_norm(self, model: torch.nn.Module) -> torch.Tensor:
        return clip_gradients(model, self.args.max_grad_norm, self.args.device)

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: torch.Tensor | None = None) -> torch.Tensor:
        return clip_gradients(model, float("inf"), self.args.device) if grad_norm is None else grad_norm

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        whole = whole_weights(self.model, self.args.device, keep=self.args.should_save)
        if self.args.should_save:
            super()._save(output_dir, whole)
        part = self._part(str(output_dir), "weights")
        part.parent.mkdir(parents=True, exist_ok=True)
        torch.save(trained_parts(self._module), part)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        assert self.optimizer is not None and self.lr_scheduler is not None
        torch.save(optimizer_parts(self.optimizer), self._part(output_dir, "optimizer"))
        if self.args.should_save:
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        put_back(self._module)
        restore_parts(self._module, _read(self._part(resume_from_checkpoint, "weights")))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        assert self.optimizer is not None and self.lr_scheduler is not None
        restore_optimizer(self.optimizer, _read(self._part(checkpoint, "optimizer")))
        self.lr_scheduler.load_state_dict(_read(Path(checkpoint) / SCHEDULER_NAME))

    def _part(self, checkpoint: str, name: str) -> Path:
        """This process's file."""
        return Path(checkpoint) / _SHARDS / f"{name}-{self.args.process_index}.pt"


def _read(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)

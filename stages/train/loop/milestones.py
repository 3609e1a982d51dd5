"""What the Trainer does between steps: evaluations that are exact, checkpoints that are complete or not there."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors import SafetensorError
from torch.utils.data import DataLoader

from pipeline.errors import RegrowError
from stages.train.checkpoints.complete import checkpoint_path, keep_newest, mark_complete, newest_resumable, step_of, write_origin
from stages.train.data.bins import BinDataset
from stages.train.loop.best import Criterion
from stages.train.loop.evaluation import held_out_loader
from stages.train.loop.schedule import Schedule

if TYPE_CHECKING:
    from transformers import Trainer
else:
    Trainer = object  # what follows is mixed into trainers of transformers and of TRL


@dataclass(frozen=True)
class Keeping:
    """Which checkpoints are kept, and what each says about itself.

    Attributes:
        origin: what it was made from; see :mod:`stages.train.checkpoints.origin`.
        keep: how many of the newest.
        best: what tells the one that is kept besides; ``None`` where nobody asks for it.
    """

    origin: Mapping[str, Any]
    keep: int
    best: Criterion | None
    schedule: Schedule

    def best_step(self, history: list[Any]) -> int | None:
        """Step of the best checkpoint so far, among those that the run's own cadence writes."""
        return None if self.best is None else self.best.best(history, self.schedule.keeps)


class Milestones(Trainer):
    """Mixed into a Trainer: its evaluations and checkpoints are regrow's."""

    keeping: Keeping

    @property
    def held_out_batch(self) -> int:
        """Held-out bins that a process measures at once."""
        return self.args.per_device_eval_batch_size

    def measure(self) -> dict[str, float]:
        """What the held-out bins say of the model, by the names of the log."""
        raise NotImplementedError

    def _run_epoch(self, *arguments: Any, **keywords: Any) -> None:
        """An epoch, unless the run is over already: one that was killed after its last step has nothing left to train."""
        if not self.control.should_training_stop:
            super()._run_epoch(*arguments, **keywords)  # type: ignore[no-untyped-call]

    def _evaluate(self, trial: Any, ignore_keys_for_eval: Any, skip_scheduler: bool = False) -> dict[str, float]:
        """``skip_scheduler`` marks the evaluation before the first step; a resumed run had it."""
        if skip_scheduler and self.state.global_step > 0:
            return {}
        return super()._evaluate(trial, ignore_keys_for_eval, skip_scheduler)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        """This process's share of the held-out bins, in batches."""
        dataset = cast(BinDataset, self.eval_dataset)
        return held_out_loader(dataset, self.held_out_batch, self.args.process_index, self.args.world_size, self.data_collator)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Measure the held-out bins and log it."""
        metrics = self.measure()
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def over_processes(self, sums: torch.Tensor) -> torch.Tensor:
        """The sum over all processes, on the CPU."""
        if self.args.world_size > 1:
            sums = sums.to(self.args.device)
            torch.distributed.all_reduce(sums)
        return sums.cpu()

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write one, and mark it complete; if that fails, leave those that are.

        Raises:
            RegrowError: it could not be written, mostly because the disk is full.
        """
        folder = checkpoint_path(Path(str(self.args.output_dir)), self.state.global_step)
        try:
            super()._save_checkpoint(model, trial)
            if self.args.world_size > 1:
                torch.distributed.barrier()
            if self.args.should_save:
                self._complete(folder)
        except (OSError, RuntimeError, SafetensorError) as error:
            raise _unwritten(folder, error) from error

    def _complete(self, folder: Path) -> None:
        step = self.state.global_step
        batch = {"micro_batch_size": self.args.per_device_train_batch_size, "resumable": not self.args.save_only_model}
        write_origin(folder, {**self.keeping.origin, **batch, "step": step})
        mark_complete(folder)
        keep_newest(folder.parent, self.keeping.keep, self.keeping.best_step(self.state.log_history))


def _unwritten(folder: Path, error: Exception) -> RegrowError:
    shutil.rmtree(folder, ignore_errors=True)
    last = newest_resumable(folder.parent)
    left = "there is none before it" if last is None else f"the one of step {step_of(last)} is still there"
    free = shutil.disk_usage(folder.parent).free // 10**6
    said = " ".join(str(error).split())[:200]
    return RegrowError(
        f"The checkpoint of step {step_of(folder)} could not be written ({said}); {left}. {folder.parent} has {free:,} MB free.",
        "Make room, or lower save_total_limit, and run the same command again: it goes on from the last checkpoint.",
    )

"""What happens at the borders of steps: the epoch's order, progress, complete checkpoints, polite stops."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from pipeline.errors import RegrowError
from pipeline.progress import Task
from stages.train.checkpoints import checkpoint_path, keep_newest, mark_complete
from stages.train.counts import SeenTokens
from stages.train.data import EpochOrder
from stages.train.stopping import StopRequest


class SetEpoch(TrainerCallback):
    """Tells the order its epoch, from the step alone: right after a resume too, whatever wraps the data loader."""

    def __init__(self, order: EpochOrder, steps_per_epoch: int) -> None:
        self._order, self._steps_per_epoch = order, steps_per_epoch

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._order.epoch = state.global_step // self._steps_per_epoch


class ShowProgress(TrainerCallback):
    """Counts steps and tokens, and ends a run whose loss is no longer a number."""

    def __init__(self, task: Task, seen: SeenTokens) -> None:
        self._task, self._seen = task, seen

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._task.advance(state.global_step)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        loss: float | None = kwargs["logs"].get("loss")
        if loss is None:
            return
        if not math.isfinite(loss):
            raise RegrowError(
                f"The loss is {loss} at step {state.global_step}: training has diverged.",
                f"Lower learning_rate (now {args.learning_rate:g}) or lengthen the warm-up (now {args.warmup_steps:g} steps).",
            )
        tokens = self._seen.after(state.global_step)[0] - self._seen.after(state.global_step - 1)[0]
        self._task.advance(1, tokens=tokens, note=f"loss {loss:.4f}")


class CompleteCheckpoints(TrainerCallback):
    """Marks a checkpoint once every process has written its part, and only then lets an older one go."""

    def __init__(self, root: Path, keep: int) -> None:
        self._root, self._keep = root, keep

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if args.world_size > 1:
            torch.distributed.barrier()
        if args.should_save:
            mark_complete(checkpoint_path(self._root, state.global_step))
            keep_newest(self._root, self._keep)


class StopOnRequest(TrainerCallback):
    """Saves and stops at the end of the step in which any process was asked to stop; a finished run just finishes."""

    def __init__(self, request: StopRequest) -> None:
        self._request = request
        self.stopped = False

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step < state.max_steps and self._anyone_asked(args):
            control.should_save = control.should_training_stop = self.stopped = True

    def _anyone_asked(self, args: TrainingArguments) -> bool:
        asked = self._request.received is not None
        if args.world_size == 1:
            return asked
        # A signal reaches processes at different moments; they must leave the collective work after the same step.
        flag = torch.tensor(int(asked), device=args.device)
        torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
        return bool(flag.item())

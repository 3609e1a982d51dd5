"""What happens at the borders of steps: the epoch's order, what is due, progress, and what people ask for meanwhile."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from pipeline.errors import RegrowError
from pipeline.progress import Task
from stages.train.data.bins import EpochOrder
from stages.train.data.counts import SeenTokens
from stages.train.loop.best import Criterion
from stages.train.loop.schedule import Schedule
from stages.train.loop.stopping import Requests


class SetEpoch(TrainerCallback):
    """Tells the order its epoch, from the step alone: right after a resume too, whatever wraps the data loader."""

    def __init__(self, order: EpochOrder, steps_per_epoch: int) -> None:
        self._order, self._steps_per_epoch = order, steps_per_epoch

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._order.epoch = state.global_step // self._steps_per_epoch


class FollowSchedule(TrainerCallback):
    """Evaluates and saves when it is due, and ends a run that does not improve any more. All of it follows from step and log."""

    def __init__(self, schedule: Schedule, criterion: Criterion, patience: int | None, save_first_step: bool) -> None:
        self._schedule, self._criterion, self._patience, self._save_first_step = schedule, criterion, patience, save_first_step

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        # Resumed after its last step: transformers would train one more.
        if state.global_step >= state.max_steps or self._is_patience_over(state):
            control.should_training_stop = True

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        step = state.global_step
        if self._schedule.evaluations.due(step):
            control.should_evaluate = True
        if self._schedule.saves.due(step) or (step == 1 and self._save_first_step):
            control.should_save = True

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self._schedule.saves_best and self._criterion.best(state.log_history) == state.global_step > 0:
            control.should_save = True
        if self._is_patience_over(state):
            control.should_training_stop = True

    def _is_patience_over(self, state: TrainerState) -> bool:
        return self._patience is not None and self._criterion.without_improvement(state.log_history) >= self._patience


class ShowProgress(TrainerCallback):
    """Counts steps and tokens, and ends a run whose loss is no longer a number."""

    def __init__(self, task: Task, seen: SeenTokens, *, speed: bool) -> None:
        self._task, self._seen, self._speed = task, seen, speed
        self._evaluation, self._measured = "", 0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._task.advance(state.global_step)

    def on_prediction_step(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._measured += 1
        self._task.advance(0, note=f"evaluating, batch {self._measured}")

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        logs: dict[str, float] = kwargs["logs"]
        if "eval_loss" in logs:
            self._evaluation, self._measured = f"  eval loss {logs['eval_loss']:.4f}", 0
            self._task.advance(0, note=self._evaluation.strip())
        if "loss" not in logs:
            return
        # Under fp16 a gradient that is too large is no accident: its step is left out, and the next one is scaled down.
        names = {"loss": "loss"} | ({} if args.fp16 else {"grad_norm": "norm of the gradient"})
        if broken := next((name for name in names if not math.isfinite(logs.get(name, 0.0))), None):
            raise RegrowError(
                f"The {names[broken]} is {logs[broken]} at step {state.global_step}: training has diverged.",
                f"Lower learning_rate (now {args.learning_rate:g}) or lengthen the warm-up (now {args.warmup_steps:g} steps).",
            )
        tokens = self._seen.of(state.global_step) if self._speed else 0
        numbers = f"loss {logs['loss']:.4f}  lr {logs['learning_rate']:.2e}  norm {logs.get('grad_norm', math.nan):.2f}"
        self._task.advance(1, tokens=tokens, note=numbers + self._evaluation)


class HeedRequests(TrainerCallback):
    """Saves, or saves and stops, at the end of the step in which any process was asked to; a finished run just finishes."""

    def __init__(self, requests: Requests, trigger: Path | None, interval: int, say: Callable[[str], None]) -> None:
        self._requests, self._trigger, self._interval, self._say = requests, trigger, interval, say
        self.stopped = self._saves = False

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step >= state.max_steps:
            return
        stop, save = self._asked(args, state.global_step)
        if stop:
            args.save_only_model = False  # what is left behind by a stop must be good to go on from
            control.should_save = control.should_training_stop = self.stopped = True
        elif save:
            control.should_save = self._saves = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self._saves:
            self._say(f"A checkpoint of step {state.global_step} was written, as asked for.")
        self._saves = False

    def _asked(self, args: TrainingArguments, step: int) -> tuple[bool, bool]:
        """(whether to stop, whether to save)."""
        save = self._requests.take_save() or (args.should_save and self._is_triggered(step))
        asked = self._requests.stop is not None, save
        if args.world_size == 1:
            return asked
        # A signal reaches processes at different moments; they must act after the same step.
        flags = torch.tensor([int(flag) for flag in asked], device=args.device)
        torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX)
        stop, save = (bool(flag) for flag in flags.tolist())
        return stop, save

    def _is_triggered(self, step: int) -> bool:
        if self._trigger is None or step % self._interval or not self._trigger.exists():
            return False
        self._trigger.unlink()
        return True

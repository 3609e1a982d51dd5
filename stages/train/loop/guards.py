"""What watches over a run: a loss that stays too high, memory that nobody uses, and records of speed and of single steps."""

from __future__ import annotations

import gc
import time
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from pipeline.errors import RegrowError
from pipeline.options.views import TrainOptions
from stages.train.data.counts import SeenTokens

_PATIENCE = 3
_SPEED = "step,seconds,tokens,tokens_per_second"
_COMMAS = _SPEED.count(",")


class WatchLoss(TrainerCallback):
    """Fails a run whose loss is above a threshold for so many steps in a row. Each step is one entry of the log, and counts once."""

    def __init__(self, threshold: float, patience: int | None) -> None:
        self._threshold, self._patience = threshold, patience or _PATIENCE

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        losses = [entry["loss"] for entry in state.log_history[-2 * self._patience :] if "loss" in entry][-self._patience :]
        if len(losses) == self._patience and min(losses) > self._threshold:
            raise RegrowError(
                f"The loss was above loss_watchdog_threshold {self._threshold:g} in {self._patience} steps in a row; "
                f"it is {losses[-1]:.4g} at step {state.global_step}.",
                f"Lower learning_rate (now {args.learning_rate:g}), look at the rows of these steps, or raise the threshold.",
            )


class FreeMemory(TrainerCallback):
    """Collects garbage and empties the GPU's cache every so many steps; -1: at the end of epochs and before evaluations."""

    def __init__(self, collect: int, empty: int) -> None:
        self._collect, self._empty = collect, empty

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        step, evaluates = state.global_step, control.should_evaluate
        self._free(*(evaluates if every == -1 else every > 0 and step % every == 0 for every in (self._collect, self._empty)))

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._free(self._collect == -1, self._empty == -1)

    def _free(self, collect: bool, empty: bool) -> None:
        if collect:
            gc.collect()
        if empty and torch.cuda.is_available():
            torch.cuda.empty_cache()


class RecordSpeed(TrainerCallback):
    """Appends seconds and tokens per second of each step to a file; a run that goes on forgets the steps that it does again."""

    def __init__(self, path: Path, seen: SeenTokens) -> None:
        self._path, self._seen, self._before = path, seen, 0.0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        former = self._path.read_text(encoding="utf-8").splitlines()[1:] if self._path.exists() else []
        kept = [line for line in former if line.count(",") == _COMMAS and int(line.partition(",")[0]) <= state.global_step]
        self._path.write_text("\n".join([_SPEED, *kept, ""]), encoding="utf-8")

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._before = time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        seconds, tokens = time.monotonic() - self._before, self._seen.of(state.global_step)
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(f"{state.global_step},{seconds:.4f},{tokens},{tokens / max(seconds, 1e-9):.0f}\n")


class Profile(TrainerCallback):
    """Records steps ``first`` to ``last`` of this process: a memory snapshot on a CUDA GPU, elsewhere a chrome trace."""

    def __init__(self, folder: Path, first: int, last: int) -> None:
        self._path = folder / f"profile-{first}-{last}"
        self._first, self._last = first, last
        self._trace: Any = None
        self._remembers = False

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step != self._first - 1:
            return
        if torch.cuda.is_available():
            torch.cuda.memory._record_memory_history()
            self._remembers = True
        else:
            self._trace = torch.profiler.profile(record_shapes=True)
            self._trace.start()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step == min(self._last, state.max_steps):
            self._write()

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._write()

    def _write(self) -> None:
        """Write what was recorded, once."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if self._trace is not None:
            self._trace.stop()
            self._trace.export_chrome_trace(str(self._path.with_suffix(".json")))
        if self._remembers:
            torch.cuda.memory._dump_snapshot(str(self._path.with_suffix(".pickle")))  # type: ignore[no-untyped-call]
            torch.cuda.memory._record_memory_history(enabled=None)
        self._trace, self._remembers = None, False


def guards(options: TrainOptions, records: Path, seen: SeenTokens, leads: bool) -> list[TrainerCallback]:
    """Those that the options ask for, for this process."""
    found: list[TrainerCallback] = []
    if options.loss_watchdog_threshold is not None:
        found.append(WatchLoss(options.loss_watchdog_threshold, options.loss_watchdog_patience))
    if options.gc_collect_steps or options.torch_empty_cache_steps:
        found.append(FreeMemory(options.gc_collect_steps or 0, options.torch_empty_cache_steps or 0))
    if options.profiler_steps and leads:
        first = options.profiler_steps_start + 1
        found.append(Profile(records, first, first + options.profiler_steps - 1))
    if options.include_tkps and leads:
        found.append(RecordSpeed(records / "speed.csv", seen))
    return found

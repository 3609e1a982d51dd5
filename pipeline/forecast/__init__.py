"""What a training run will be, before it starts: steps, tokens, and estimates of memory and time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.artifact import MANIFEST, open_artifact
from pipeline.bins import Bins
from pipeline.forecast.memory import PROGRAM, Batch, Memory, estimate
from pipeline.forecast.tensors import read_shapes
from pipeline.generation import generates, trl_of
from pipeline.options.views import TrainOptions
from pipeline.order import BinOrder
from pipeline.steps import Steps, accumulation_steps, count_steps
from pipeline.tokens import TokenTable


@dataclass(frozen=True)
class Work:
    """What a run goes through.

    Attributes:
        bins: of an epoch.
        tokens: of the whole run, counting every pass over one.
        trained_tokens: those among them that are labels.
        longest: tokens of the longest bin.
        packed: whether bins hold several documents.
    """

    steps: Steps
    bins: int
    tokens: int
    trained_tokens: int
    longest: int
    packed: bool


def forecast(data: Path, options: TrainOptions) -> Iterator[str]:
    """Lines about the training that the plan in ``data/packed`` makes, as one process does it. None where there is no such plan."""
    if not all((data / name / MANIFEST).is_file() for name in ("tokens", "packed")):
        return
    if open_artifact(data / "packed", verify=False).inputs.get("tokens") != open_artifact(data / "tokens", verify=False).digest:
        return
    bins = Bins.load(data / "packed" / "train.arrow")
    if not len(bins):
        return
    if generates(options):
        yield from _answers(len(bins), options)
        return
    work = measure(bins, TokenTable(data / "tokens"), options)
    steps = work.steps
    yield f"train, by data/packed as it is, in one process: {steps.steps:,} steps, {steps.steps_per_epoch:,} an epoch; {_epochs(steps)}"
    yield f"    {work.bins:,} bins, {steps.bins_per_step:,} a step; {work.tokens:,} tokens, {work.trained_tokens:,} of them trained"
    if (data / "base" / "config.json").is_file():
        yield from _memory_lines(data / "base", options, work)
    yield from _time_lines(data / "metrics" / "train.json", options, work)


def _answers(prompts: int, options: TrainOptions) -> Iterator[str]:
    """Of generated answers only the number is known, and that they are not longer than allowed."""
    steps, trl = count_steps(options, prompts, 1), trl_of(options)
    yield f"train, by data/packed as it is, in one process: {steps.steps:,} steps, {steps.steps_per_epoch:,} an epoch; {_epochs(steps)}"
    batches = -(-steps.steps // steps.updates)
    answers = batches * steps.bins_per_step * trl.num_generations
    yield (
        f"    {prompts:,} prompts, {steps.bins_per_step:,} a step, {trl.num_generations} answers to each: {answers:,} answers of up to "
        f"{trl.max_completion_length:,} tokens"
    )


def measure(bins: Bins, tokens: TokenTable, options: TrainOptions, world_size: int = 1) -> Work:
    """Count what a run over ``bins`` goes through, to its last step."""
    steps = count_steps(options, len(bins), world_size, drop_last=bool(options.dataloader_drop_last))
    per_bin = bins.tokens_per_bin()
    order = BinOrder.asked(options, per_bin, world_size)
    trained = bins.sums(tokens.count_trained(bins.row, bins.start + 1, bins.length - 1))  # the first token has none before it
    epochs, rest = divmod(steps.steps, steps.steps_per_epoch)
    whole = [order.of_epoch(epoch) for epoch in range(epochs)] if len(order) < len(bins) else []
    last = order.of_epoch(epochs)[: steps.bins_after(rest)]
    seen, learned = (_sum(counts, epochs, whole, last) for counts in (per_bin, trained))
    return Work(steps, len(bins), seen, learned, int(per_bin.max()), packed=len(bins.row) > len(bins))


def _sum(counts: np.ndarray, epochs: int, whole: Sequence[np.ndarray], last: np.ndarray) -> int:
    """Over the bins of whole epochs, which are all of them where ``whole`` does not say otherwise, and of the begun one."""
    full = sum(int(counts[order].sum()) for order in whole) if whole else epochs * int(counts.sum())
    return full + int(counts[last].sum())


def _epochs(steps: Steps) -> str:
    return f"{steps.epochs:.4g} epoch{'' if steps.epochs == 1 else 's'}"


def _memory_lines(base: Path, options: TrainOptions, work: Work) -> Iterator[str]:
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    try:
        memory = estimate(options, config, read_shapes(base), _batch(base.parent, options, work), half=_computes_in_half(options))
    except KeyError:
        yield f"    memory: no estimate for models of type {config.get('model_type')!r}"
        return
    yield f"    {memory.trained:,} of {memory.parameters:,} parameters are trained"
    yield f"    memory, an estimate: {_size(memory.total + PROGRAM)} in use, and up to a fifth more in an allocator's gaps"
    yield f"        {_terms(memory)}"


def _batch(data: Path, options: TrainOptions, work: Work) -> Batch:
    """The largest batch there can be; of its tokens, as large a share is trained as of all."""
    length = work.longest
    if options.pad_to_sequence_len:
        length = max(length, int(open_artifact(data / "packed", verify=False).content["sequence_len"]))
    multiple = options.pad_to_multiple_of or 1
    length = -(-length // multiple) * multiple
    share = work.trained_tokens / work.tokens
    rows = options.micro_batch_size
    return Batch(rows, length, int(np.ceil(rows * work.longest * share)), accumulation_steps(options, 1), work.packed)


def _computes_in_half(options: TrainOptions) -> bool:
    """`bf16: auto` takes bfloat16 on a GPU; whether there is one is asked without importing torch."""
    return bool(options.fp16) or (Path("/proc/driver/nvidia/version").exists() if options.bf16 == "auto" else bool(options.bf16))


def _terms(memory: Memory) -> str:
    forward = f"activations {_size(memory.activations)} + logits {_size(memory.logits)}"
    gradients = f"gradients {_size(memory.gradients)}"
    work = f"{gradients} + {forward}" if memory.together else f"the larger of {gradients} and ({forward})"
    return f"weights {_size(memory.weights)} + optimizer {_size(memory.optimizer)} + {work} + the program {_size(PROGRAM)}"


def _size(count: float) -> str:
    """Bytes for people."""
    return f"{count / 2**30:.1f} GB" if count >= 2**30 else f"{count / 2**20:.0f} MB"


def _time_lines(record: Path, options: TrainOptions, work: Work) -> Iterator[str]:
    """At the pace of the last run here, if there was one of the same kind."""
    last = _last_run(record)
    if last is None or last["metrics"].get("kind") != ("adapter" if options.adapter else "full"):
        return
    pace = last["metrics"]["tokens"] / last["seconds"]
    yield f"    time, roughly: {_duration(work.tokens / pace)} at the {pace:,.0f} tokens/s of the last run in this folder"


def _last_run(record: Path) -> Mapping[str, Any] | None:
    """Its record; nothing where there is none that says how fast it was."""
    try:
        found: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
        return found if found["seconds"] > 0 and found["metrics"]["tokens"] > 0 else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if hours < 2 else f"{hours:.1f} h"

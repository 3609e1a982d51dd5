"""What a training run will be, before it starts: steps, tokens, and an estimate of its memory."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

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
    """Lines about the training that the plan in ``data/packed`` makes. None where there is no such plan."""
    bins = _planned_bins(data)
    if bins is None:
        return
    if generates(options):
        yield from _answers(len(bins), options)
        return
    work = measure(bins, TokenTable(data / "tokens"), options)
    steps = work.steps
    yield f"by data/packed as it is{_together(options)}: {steps.steps:,} steps, {steps.steps_per_epoch:,} an epoch; {_epochs(steps)}"
    yield f"    {work.bins:,} bins, {steps.bins_per_step:,} a step; {work.tokens:,} tokens, {work.trained_tokens:,} of them trained"
    if (data / "base" / "config.json").is_file():
        yield from _memory_lines(data / "base", options, work)


def training_work(data: Path, options: TrainOptions) -> Work | None:
    """What the training goes through; ``None`` where its data is not there, or is made by the model itself."""
    bins = _planned_bins(data)
    return None if bins is None or generates(options) else measure(bins, TokenTable(data / "tokens"), options)


def _together(options: TrainOptions) -> str:
    count = options.train.num_processes
    return f", in {count} processes" if count > 1 else ""


def _planned_bins(data: Path) -> Bins | None:
    """Training bins of ``data/packed``, if they are bins of the rows in ``data/tokens``."""
    if not all((data / name / MANIFEST).is_file() for name in ("tokens", "packed")):
        return None
    if open_artifact(data / "packed", verify=False).inputs.get("tokens") != open_artifact(data / "tokens", verify=False).digest:
        return None
    bins = Bins.load(data / "packed" / "train.arrow")
    return bins if len(bins) else None


def _answers(prompts: int, options: TrainOptions) -> Iterator[str]:
    """Of generated answers only the number is known, and that they are not longer than allowed."""
    steps, trl = count_steps(options, prompts, options.train.num_processes), trl_of(options)
    yield f"by data/packed as it is{_together(options)}: {steps.steps:,} steps, {steps.steps_per_epoch:,} an epoch; {_epochs(steps)}"
    batches = -(-steps.steps // steps.updates)
    answers = batches * steps.bins_per_step * trl.num_generations
    yield (
        f"    {prompts:,} prompts, {steps.bins_per_step:,} a step, {trl.num_generations} answers to each: {answers:,} answers of up to "
        f"{trl.max_completion_length:,} tokens"
    )


def measure(bins: Bins, tokens: TokenTable, options: TrainOptions) -> Work:
    """Count what a run over ``bins`` goes through, to its last step."""
    world_size = options.train.num_processes
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

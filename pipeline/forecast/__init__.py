"""What a training run will be, before it starts: steps, tokens, and an estimate of its memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from pipeline.artifact import MANIFEST, open_artifact
from pipeline.bins import Bins
from pipeline.forecast.lines import memory_lines
from pipeline.forecast.work import Work
from pipeline.generation import generates, trl_of
from pipeline.options.views import TrainOptions
from pipeline.order import BinOrder
from pipeline.steps import Steps, count_steps
from pipeline.tokens import TokenTable


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
        yield from memory_lines(data, options, work)


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
    return Work(steps, len(bins), seen, learned, int(per_bin.max()), int(trained.max()), packed=len(bins.row) > len(bins))


def _sum(counts: np.ndarray, epochs: int, whole: Sequence[np.ndarray], last: np.ndarray) -> int:
    """Over the bins of whole epochs, which are all of them where ``whole`` does not say otherwise, and of the begun one."""
    full = sum(int(counts[order].sum()) for order in whole) if whole else epochs * int(counts.sum())
    return full + int(counts[last].sum())


def _epochs(steps: Steps) -> str:
    return f"{steps.epochs:.4g} epoch{'' if steps.epochs == 1 else 's'}"

"""Training on answers that the model itself generates: how many prompts make a batch of answers."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.errors import RegrowError
from pipeline.options.online import Trl
from pipeline.options.views import TrainOptions


def generates(options: TrainOptions) -> bool:
    """Whether rows are prompts that the model answers itself."""
    return options.rl in ("grpo", "gdpo")


def trl_of(options: TrainOptions) -> Trl:
    """Settings of TRL, with defaults where the file has none."""
    return options.trl or Trl()


def reward_names(functions: Iterable[str]) -> list[str]:
    """Short names of functions and folders of reward models, each different, for columns and charts."""
    given = [name.rstrip("/") for name in functions]
    short = [name.rpartition("/" if "/" in name else ".")[2] for name in given]
    return [full if short.count(name) > 1 else name for full, name in zip(given, short, strict=True)]


def prompts_at_once(options: TrainOptions, answers: int) -> int:
    """Prompts of a batch of ``answers`` answers, which is that of an optimizer step on all processes.

    Raises:
        RegrowError: the answers to a prompt would be in two batches.
    """
    each = trl_of(options).num_generations
    if answers % each:
        down, up = answers - answers % each, answers + each - answers % each
        raise RegrowError(
            f"A step takes {answers} answers (micro_batch_size, gradient_accumulation_steps and processes multiplied), and "
            f"trl.num_generations: {each} answers to a prompt stay together.",
            f"Make it {f'{down} or {up}' if down else up} answers, or set trl.num_generations to {_divisors(answers)}.",
        )
    return answers // each


def _divisors(number: int) -> str:
    found = [str(divisor) for divisor in range(2, number + 1) if number % divisor == 0]
    return " or ".join(found[-3:]) or "a divisor of a larger batch"

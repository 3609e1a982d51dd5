"""GRPO's trainer, from options and artifacts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from pipeline.errors import RegrowError
from pipeline.generation import trl_of
from pipeline.options.views import TrainOptions
from pipeline.order import BinOrder
from pipeline.own_code import find_function
from pipeline.progress import Progress
from stages.train.data.corpus import Corpus
from stages.train.loop.schedule import Schedule
from stages.train.online.prompts import PromptOrder, Prompts
from stages.train.online.rewards import judges_of
from stages.train.online.settings import grpo_settings
from stages.train.online.trainer import GRPO, Asked
from stages.train.online.trl_grpo import GRPOConfig


def build_grpo(
    options: TrainOptions,
    corpus: Corpus,
    model: Any,
    told: Callable[..., Any],
    order: BinOrder,
    schedule: Schedule,
    tokenizer: Any,
    progress: Progress,
) -> GRPO:
    """``told`` makes the arguments of a trainer, of a class and with settings of its own.

    Raises:
        RegrowError: something that cannot work, here or at all.
    """
    trl, make = trl_of(options), partial(Prompts, tokens=corpus.tokens)
    arguments = told(kind=GRPOConfig, **grpo_settings(options))
    measured = schedule.evaluations.interval is not None
    _check_shares(len(corpus.held_out) if measured else 0, arguments.world_size)
    rollout = None if trl.rollout_func is None else find_function(trl.rollout_func, "trl.rollout_func")
    times = arguments.gradient_accumulation_steps * trl.num_iterations
    asked = Asked(
        model,
        arguments,
        make(corpus.bins),
        make(corpus.held_out) if measured else None,
        PromptOrder(order, schedule.bins_per_step, trl.num_generations, times),
        tokenizer,
        judges_of(trl.reward_funcs or []),
        rollout,
        options,
        progress.say,
    )
    return GRPO(asked)


def _check_shares(held_out: int, processes: int) -> None:
    if held_out % processes:
        raise RegrowError(
            f"{held_out} held-out prompts cannot be shared out evenly to {processes} processes.",
            f"Set val_set_size to a multiple of {processes}, such as {held_out - held_out % processes or processes}.",
        )

"""Every bin once per epoch, in an order that follows from seed and epoch alone; counts that follow from the order."""

from __future__ import annotations

import signal
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.bins import Bins
from pipeline.errors import Interrupted
from pipeline.models import load_causal_lm
from pipeline.options.views import TrainOptions
from pipeline.order import BinOrder, epoch_order
from pipeline.tokens import TokenTable
from stages.train.data.bins import EMPTY_BIN, EpochOrder
from stages.train.data.counts import BinCounts, SeenTokens
from stages.train.loop.schedule import plan_schedule
from tests.train.workspace import SignalAt, read_log, train

SEEDS = st.integers(0, 2**32 - 1)


@given(SEEDS, st.integers(0, 50), st.integers(1, 40), st.integers(1, 9))
def test_an_epoch_has_every_bin_once(seed: int, epoch: int, bins: int, multiple: int) -> None:
    order = EpochOrder(BinOrder(np.ones(bins, int), seed), multiple)
    order.epoch = epoch
    numbers = list(order)
    assert len(numbers) == len(order)
    assert len(numbers) % multiple == 0
    assert numbers[:bins] == epoch_order(seed, epoch, bins).tolist()
    assert sorted(numbers[:bins]) == list(range(bins))
    assert set(numbers[bins:]) <= {EMPTY_BIN}
    assert len(numbers) - bins < multiple


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = {tuple(epoch_order(seed, epoch, 50)) for seed in range(4) for epoch in range(4)}
    assert len(orders) == 16


@given(SEEDS, st.lists(st.integers(1, 9), min_size=1, max_size=20), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))
def test_seen_tokens_are_those_of_the_bins_so_far(
    seed: int, lengths: list[int], micro_batch_size: int, accumulation: int, world_size: int
) -> None:
    """Against walking through the steps, one global batch after the other."""
    options = TrainOptions.model_validate(
        {"learning_rate": 1, "num_epochs": 3, "micro_batch_size": micro_batch_size, "gradient_accumulation_steps": accumulation}
    )
    schedule = plan_schedule(options, len(lengths), world_size)
    tokens = np.asarray(lengths)
    seen = SeenTokens(BinCounts(tokens, tokens // 2, 0, 0), schedule, BinOrder(tokens, seed))
    size = micro_batch_size * accumulation * world_size
    orders = (epoch_order(seed, epoch, len(lengths)) for epoch in range(3))
    batches = list(chain.from_iterable((order[start : start + size] for start in range(0, len(order), size)) for order in orders))
    assert len(batches) == schedule.steps
    for step in range(len(batches) + 1):
        numbers = np.concatenate([np.zeros(0, np.int64), *batches[:step]])
        assert seen.after(step) == (tokens[numbers].sum(), (tokens[numbers] // 2).sum())


def base_losses(data: Path) -> list[float]:
    """By hand: the base model's mean loss over the trained tokens of each bin, row by row."""
    model, tokens = load_causal_lm(data / "base"), TokenTable(data / "tokens")
    bins = Bins.load(data / "packed" / "train.arrow")
    means = []
    for number in range(len(bins)):
        losses: list[float] = []
        for row, _, _ in bins.spans(number):
            ids = torch.from_numpy(tokens.ids(row).astype(np.int64))
            with torch.no_grad():
                logits = model(input_ids=ids[None]).logits[0, :-1]
            every = torch.nn.functional.cross_entropy(logits, ids[1:], reduction="none")
            losses += every[torch.from_numpy(tokens.mask(row)[1:] == 1)].tolist()
        means.append(sum(losses) / len(losses))
    return means


@pytest.mark.shows("curriculum_sampling")
@pytest.mark.parametrize("stop", [None, 11])
def test_a_curriculum_has_the_order_of_the_plan_in_every_epoch(workspace: Path, stop: int | None) -> None:
    options = {"num_epochs": 2, "learning_rate": 1e-12, "optimizer": "sgd", "logging_steps": 1, "curriculum_sampling": True}
    if stop is not None:
        with pytest.raises(Interrupted):
            train(workspace, options, progress=SignalAt(stop, signal.SIGTERM))
    losses = base_losses(workspace / "data")
    assert [line["loss"] for line in read_log(train(workspace, options)[0])] == pytest.approx(losses + losses, abs=2e-5)


@pytest.mark.parametrize("stop", [None, 8, 11])
def test_a_run_trains_the_bins_in_their_order(workspace: Path, stop: int | None) -> None:
    """With next to no learning rate the loss of a step tells which bin it saw, also after a stop between or in epochs."""
    options = {"num_epochs": 3, "learning_rate": 1e-12, "optimizer": "sgd", "logging_steps": 1, "seed": 5}
    if stop is not None:
        with pytest.raises(Interrupted):
            train(workspace, options, progress=SignalAt(stop, signal.SIGTERM))
    losses = base_losses(workspace / "data")
    expected = [losses[number] for epoch in range(3) for number in epoch_order(5, epoch, 8)]
    assert [line["loss"] for line in read_log(train(workspace, options)[0])] == pytest.approx(expected, abs=2e-5)

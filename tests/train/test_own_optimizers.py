"""ADOPT, Dion and SinkGD against their papers' formulas in numpy, and what trains which parameter."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from pipeline.errors import RegrowError
from stages.train.optimizers.adopt import Adopt
from stages.train.optimizers.build import build_optimizer
from stages.train.optimizers.dion import Dion, first_basis, rank_of
from stages.train.optimizers.sinkgd import SinkGD, balanced
from tests.train.stepping import tiny_model, view

Array = np.ndarray
START = np.random.default_rng(0).normal(size=(6, 4))


def gradients(count: int) -> Iterator[Array]:
    """Unlike each other in size, so that clipping shows."""
    rng = np.random.default_rng(1)
    for number in range(count):
        yield rng.normal(size=START.shape) * 10 ** (number % 3)


def run(kind: type[torch.optim.Optimizer], steps: int, **settings: float) -> Array:
    """``START`` after so many steps."""
    parameter = torch.nn.Parameter(torch.from_numpy(START.copy()))
    optimizer = kind([parameter], **settings)  # type: ignore[call-arg]
    for gradient in gradients(steps):
        parameter.grad = torch.from_numpy(gradient)
        optimizer.step()
    found: Array = parameter.detach().numpy()
    return found


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adopt(decay: float) -> None:
    rate, first, second, epsilon = 0.01, 0.9, 0.99, 1e-6
    first_gradient, *others = gradients(6)
    weights, moment, variance = START.copy(), np.zeros_like(START), first_gradient**2
    for step, gradient in enumerate(others, start=1):
        normed = np.clip(gradient / np.maximum(np.sqrt(variance), epsilon), -(step**0.25), step**0.25)
        moment = first * moment + (1 - first) * normed
        weights = weights - rate * decay * weights - rate * moment
        variance = second * variance + (1 - second) * gradient**2
    found = run(Adopt, 6, lr=rate, betas=(first, second), eps=epsilon, weight_decay=decay)  # type: ignore[arg-type]
    np.testing.assert_allclose(found, weights, rtol=1e-12)


def test_adopt_only_measures_at_first() -> None:
    np.testing.assert_array_equal(run(Adopt, 1, lr=1.0), START)


@pytest.mark.parametrize(("fraction", "multiple", "rank"), [(1.0, 1, 4), (0.5, 1, 2), (0.3, 1, 2), (0.3, 3, 3), (0.9, 8, 4)])
def test_rank_of_dion(fraction: float, multiple: int, rank: int) -> None:
    assert rank_of((6, 4), fraction, multiple) == rank == rank_of((4, 6), fraction, multiple)


@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_dion(fraction: float) -> None:
    """Algorithm 1 of the paper, its orthonormal basis by singular values instead of reflections."""
    rate, momentum, decay = 0.05, 0.9, 0.1
    rows, columns = START.shape
    weights, kept = START.copy(), np.zeros_like(START)
    basis = first_basis(columns, rank_of(START.shape, fraction, 1)).numpy().astype(np.float64)
    for gradient in gradients(4):
        both = kept + gradient
        left = gram_schmidt(both @ basis)
        right = both.T @ left
        kept = both - (1 - momentum) * left @ right.T
        basis = right / np.sqrt((right**2).sum(axis=0))
        weights = weights * (1 - rate * decay) - rate * math.sqrt(rows / columns) * left @ basis.T
    found = run(Dion, 4, lr=rate, momentum=momentum, rank_fraction=fraction, weight_decay=decay)
    np.testing.assert_allclose(found, weights, rtol=1e-4, atol=1e-5)


def gram_schmidt(matrix: Array) -> Array:
    columns: list[Array] = []
    for column in matrix.T:
        rest = column - sum((other * (other @ column) for other in columns), np.zeros_like(column))
        columns.append(rest / np.sqrt(rest @ rest))
    return np.stack(columns, axis=1)


def test_dion_stays_still_without_a_gradient() -> None:
    parameter = torch.nn.Parameter(torch.ones(4, 3))
    parameter.grad = torch.zeros(4, 3)
    Dion([parameter], lr=1.0).step()
    assert torch.equal(parameter.detach(), torch.ones(4, 3))


def test_sinkgd() -> None:
    rate, scale, decay = 0.1, 0.5, 0.1
    weights = START.copy()
    for gradient in gradients(2):
        update = gradient
        for _ in range(5):
            update = update / np.sqrt((update**2).sum(axis=1, keepdims=True) / update.shape[1])
            update = update / np.sqrt((update**2).sum(axis=0, keepdims=True) / update.shape[0])
        weights = weights * (1 - rate * decay) - rate * scale * update
    np.testing.assert_allclose(run(SinkGD, 2, lr=rate, scale=scale, weight_decay=decay), weights, rtol=1e-5)
    lengths = balanced(torch.from_numpy(next(gradients(1))), 50).square()
    assert torch.allclose(lengths.sum(1), torch.tensor(4.0, dtype=torch.float64))
    assert torch.allclose(lengths.sum(0), torch.tensor(6.0, dtype=torch.float64))


@pytest.mark.shows("dion_lr", "dion_momentum", "dion_rank_fraction", "dion_rank_multiple_of")
def test_dions_options_reach_it() -> None:
    options = view(optimizer="dion", dion_lr=0.5, dion_momentum=0.7, dion_rank_fraction=0.25, dion_rank_multiple_of=3)
    main, *_, matrices = build_optimizer(tiny_model(), options, 0).param_groups
    assert (main["lr"], matrices["lr"], matrices["momentum"]) == (1e-2, 0.5, 0.7)
    assert (matrices["rank_fraction"], matrices["rank_multiple_of"]) == (0.25, 3)


@pytest.mark.parametrize(("name", "settings"), [("muon", {}), ("dion", {"dion_lr": 0.1}), ("sinkgd", {})])
def test_matrices_of_hidden_layers_and_the_rest(name: str, settings: dict[str, float]) -> None:
    model = tiny_model()
    groups = build_optimizer(model, view(optimizer=name, weight_decay=0.1, **settings), 0).param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    adamw = {names[id(parameter)] for group in groups if "betas" in group for parameter in group["params"]}
    others = {names[id(parameter)] for group in groups if "betas" not in group for parameter in group["params"]}
    assert others == {name for name in names.values() if name.endswith("proj.weight")}
    assert adamw == set(names.values()) - others
    assert {group["weight_decay"] for group in groups if "betas" not in group} == {0.1}


def test_something_must_be_a_hidden_matrix() -> None:
    model = tiny_model()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("norm" in name)
    with pytest.raises(RegrowError, match="optimizer: muon trains matrices of hidden layers, and none is trained"):
        build_optimizer(model, view(optimizer="muon"), 0)

"""What an optimizer keeps for the numbers that it trains."""

from __future__ import annotations

import math
import re
from fnmatch import fnmatchcase

from pipeline.forecast.tensors import Shapes, count, linear
from pipeline.optimizers import OPTIMIZERS
from pipeline.options.views import TrainOptions

STATES: tuple[tuple[str, float, float], ...] = (
    ("*adafactor*", 0, 4),  # a row and a column of each matrix
    ("schedule_free_sgd", 1, 4),
    ("flash_adam*", 2, 1),
    ("flash_lion", 1, 1),
    ("flash_sgd*", 1, 1),
    ("sgd", 0, 4),
    ("sinkgd", 0, 4),
    ("lomo", 0, 4),
    ("lion_8bit", 1, 1),
    ("paged_lion_8bit", 1, 1),
    ("*lion*", 1, 4),
    ("rmsprop*8bit", 1, 1),
    ("rmsprop*", 1, 4),
    ("adagrad", 1, 4),
    ("muon", 1, 4),  # momentum of matrices, see `state_bytes`
    ("dion", 2, 4),  # a momentum and a basis of full rank; less with dion_rank_fraction
    ("*ademamix_8bit", 3, 1),
    ("*ademamix*", 3, 4),
    ("grokadamw", 3, 4),
    ("came_pytorch", 1, 4),
    ("*4bit", 2, 0.5),
    ("*8bit*", 2, 1),
    ("*fp8", 2, 1),
    ("*", 2, 4),  # Adam and its kin
)
"""Optimizer (the first pattern that fits counts), numbers for each trained one, bytes of each."""


def state_bytes(options: TrainOptions, shapes: Shapes, trained: int, stored: int) -> float:
    """Bytes of all states, for ``trained`` numbers that are stored in ``stored`` bytes each.

    States have the numbers of the weights, those of bitsandbytes their own. Beside muon and dion, which take matrices, AdamW has
    two for each number of embeddings and vectors. GaLore and APOLLO keep theirs of matrices that are projected to a few rows.
    """
    known = OPTIMIZERS[options.optimizer]
    states, each = next((number, size) for pattern, number, size in STATES if fnmatchcase(options.optimizer, pattern))
    each = each if known.package == "bitsandbytes" or known.matrices else min(each, stored)
    if options.adapter:
        return states * each * trained
    outside = trained - min(trained, count(linear(shapes))) if known.matrices else 0
    few, squares, whole = _projected(options, shapes) if known.projection else (0, 0, 0)
    return states * each * (trained - outside - whole + few) + stored * (2 * outside + squares)


def _projected(options: TrainOptions, shapes: Shapes) -> tuple[int, int, int]:
    """Numbers of the matrices that ``optim_target_modules`` names, after the projection, of the projection, and before it.

    GaLore's projection is a part of a square matrix, which stays whole in memory (galore-torch 1.0).
    """
    asked = options.optim_args if isinstance(options.optim_args, dict) else {}
    rank = int(asked.get("rank", OPTIMIZERS[options.optimizer].projection["rank"]))
    matrices = [shape for name, shape in linear(shapes).items() if _is_targeted(name, options.optim_target_modules)]
    few = sum(min(rank, *shape) * max(shape) for shape in matrices)
    squares = sum(min(shape) ** 2 for shape in matrices) if OPTIMIZERS[options.optimizer].package == "galore_torch" else 0
    return few, squares, sum(map(math.prod, matrices))


def _is_targeted(name: str, wanted: list[str] | str | None) -> bool:
    """As transformers compares: part of a name, or a pattern for it."""
    parts = [wanted] if isinstance(wanted, str) else wanted or []
    return any(part == "all_linear" or part in name or re.fullmatch(part, name) for part in parts)


def largest_gradient(options: TrainOptions, shapes: Shapes, trained: int) -> int:
    """Numbers whose gradients are there at once: all, or where updates happen during the backward pass those of one tensor."""
    if OPTIMIZERS[options.optimizer].updates == "at the end":
        return trained
    return min(trained, max(map(math.prod, shapes.values()), default=0))

"""Whether the merged model computes what was trained: its logits beside those of the base with its adapter unmerged.

peft computes the reference: it adds the adapter to the outputs of a layer, merge to its weights. All is computed in float32. Where the
weights are stored in fewer bits, rounding alone moves the logits by more than a small mistake would. There, two things are compared:
the merged weights as they were before they were rounded, which must agree up to the noise of float32, and as they are stored.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import RegrowError
from pipeline.models import quiet_libraries
from stages.merge.checkpoint import Checkpoint
from stages.merge.folder import read_model_config
from stages.merge.on_demand import Read, lay_out, read_on_demand
from stages.merge.plan import Plan
from stages.merge.question import Question
from stages.merge.rows import Rows
from stages.merge.unmerged import open_unmerged

EXACT = 2.0**-13
"""Largest difference of two logits, over their root mean square, that the noise of float32 explains. See docs/merging.md."""

ROUNDED = 2.0**7
"""The same for weights that were rounded, times the distance between 1 and the next number of their dtype."""

_REMEDY = "The fault is in merging, not in params.yaml: please report it. merge.parity_rows: 0 publishes the model unchecked."
_MASKED = 1e30
"""Logits that are larger are a model's way to say never."""


@dataclass(frozen=True)
class Difference:
    """Between the logits of two models on one row.

    Attributes:
        row: its number in data/tokens.
        largest: of two logits.
        relative: the same over the root mean square of the reference's logits.
        divergence: Kullback-Leibler divergence of the next token, in nats, at the position where it is largest.
        agreeing: share of positions at which both find the same token most likely.
    """

    row: int
    largest: float
    relative: float
    divergence: float
    agreeing: float


def compare(reference: Tensor, other: Tensor, row: int) -> Difference:
    """Logits ``[tokens, vocabulary]`` of two models; what one of them masks, the other must mask as well."""
    real, other_real = reference.abs() < _MASKED, other.abs() < _MASKED  # neither is, where it is not a number
    if not real.equal(other_real) or not real.any():
        return Difference(row, float("inf"), float("inf"), float("inf"), 0.0)
    largest = float((reference - other)[real].abs().max())
    size = float(reference[real].square().mean().sqrt())
    divergence = max(map(_divergence, reference, other))  # a position at a time: in float64 a row would take half a gigabyte
    agreeing = (reference.argmax(-1) == other.argmax(-1)).double().mean()
    return Difference(row, largest, largest / max(size, 1e-30), divergence, float(agreeing))


def _divergence(reference: Tensor, other: Tensor) -> float:
    sure, other_sure = reference.double().log_softmax(-1), other.double().log_softmax(-1)
    return max(0.0, float((sure.exp() * (sure - other_sure)).nan_to_num(0.0).sum()))


@dataclass(frozen=True)
class Parity:
    """A merged model beside what it was merged from.

    Attributes:
        exact: the largest differences over all rows before rounding; of a model that is stored in float32, as it is stored.
        rounded: as it is stored, where that is another thing.
        dtype: that it is stored in.
    """

    rows: Rows
    exact: Difference
    rounded: Difference | None
    dtype: str

    def facts(self) -> dict[str, Any]:
        """For the manifest: what was compared, and the limits that held. The differences differ from machine to machine."""
        rounded = {} if self.rounded is None else {"rounded": {"dtype": self.dtype, "limit": _rounding(self.dtype)}}
        return {**self.rows.facts(), "limit": EXACT, **rounded}

    def measured(self) -> dict[str, Any]:
        """For the record of the run."""
        return {name: asdict(found) for name, found in (("exact", self.exact), ("rounded", self.rounded)) if found is not None}


def check_parity(
    plan: Plan, base: Path, trained: Path, merged: Path, rows: Rows, scratch: Path, unrounded: list[Tensor] | None = None
) -> Parity:
    """Compare the model in ``merged`` with the adapter in ``trained`` on ``base``, one model and one weight at a time.

    Args:
        scratch: gets files for as long as it takes.
        unrounded: logits of the merged model before it was rounded, where ``plan`` cannot make it anew.

    Raises:
        RegrowError: they differ by more than a right merge would.
    """
    quiet_libraries()
    question, stored, dtype = Question(rows), Checkpoint(merged), plan.base.main_dtype()

    def ask(read: Read) -> list[Tensor]:
        with TemporaryDirectory(dir=scratch) as own:
            laid = lay_out(merged, Path(own))
            read_on_demand(laid, read, question.ids)
            return question.ask(laid.model)

    with TemporaryDirectory(dir=scratch) as own:
        vocabulary = read_model_config(merged).get("vocab_size")
        reference = question.ask(open_unmerged(base, trained, plan.adapter.config, Path(own), vocabulary, question.ids))
    if dtype in ("float32", "float64"):
        return Parity(rows, _worst(reference, ask(stored.rows), rows, EXACT, "as it is stored"), None, dtype)
    exact = _worst(reference, unrounded or ask(_before_rounding(plan, stored)), rows, EXACT, "before it is rounded")
    rounded = _worst(reference, ask(stored.rows), rows, _rounding(dtype), f"rounded to {dtype}")
    return Parity(rows, exact, rounded, dtype)


def _before_rounding(plan: Plan, stored: Checkpoint) -> Read:
    """Merged tensors in float32; each must be, when rounded, what was stored.

    Raises:
        RegrowError: it is not.
    """

    @lru_cache(maxsize=1)  # large ones are asked for in parts
    def merge(name: str) -> Tensor:
        tensor = plan.merge_exactly(name)
        if not stored.read(name).equal(tensor.to(stored.dtypes[name])):
            raise RegrowError(f"The merged model holds {name} otherwise than it was merged.", _REMEDY)
        return tensor

    return lambda name, part: merge(name)[part] if name in plan.adapter.changes else stored.rows(name, part)


def _rounding(dtype: str) -> float:
    return ROUNDED * torch.finfo(getattr(torch, dtype)).eps


def _worst(reference: list[Tensor], other: list[Tensor], rows: Rows, limit: float, what: str) -> Difference:
    """The largest of each measure over all rows, with the row in which logits differ most.

    Raises:
        RegrowError: they differ by more than ``limit``.
    """
    found = [compare(one, another, row) for one, another, row in zip(reference, other, rows.numbers, strict=True)]
    worst = max(found, key=lambda difference: difference.relative)
    if not worst.relative <= limit:
        raise RegrowError(
            f"The merged model, {what}, does not compute what was trained: on row {worst.row} of data/tokens its logits differ by up to "
            f"{worst.largest:.2g} from those of the base with its adapter, {worst.relative:.2g} of their size; the limit is {limit:.2g}.",
            _REMEDY,
        )
    return replace(
        worst,
        largest=max(difference.largest for difference in found),
        divergence=max(difference.divergence for difference in found),
        agreeing=min(difference.agreeing for difference in found),
    )

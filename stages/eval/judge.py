"""One forward pass per batch of held-out rows, teacher-forced: how likely a model finds every judged token."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from pipeline.progress import Task
from stages.eval.rows import HeldOutRow, make_batches

# Logits of a batch, at most: 2**28 float32 are 1 GiB. eval.batch_size alone would let a long row of a large vocabulary take ten.
_MAX_LOGITS = 2**28
# Positions whose log-softmax is in memory at once.
_CHUNK = 1024


@dataclass(frozen=True)
class Judgement:
    """What one model made of the rows, in their order.

    Attributes:
        nll: float64 ``[rows]``, negative log likelihood (nats) summed over the row's judged tokens.
        tokens: int64 ``[rows]``, judged tokens.
        hits: int64 ``[rows]``, judged tokens that were the model's first choice.
        choice: int64 ``[rows]``, index of the choice it finds likeliest where the answer begins; -1 without choices.
    """

    nll: np.ndarray
    tokens: np.ndarray
    hits: np.ndarray
    choice: np.ndarray

    @property
    def exact(self) -> np.ndarray:
        """bool ``[rows]``: every judged token was the first choice."""
        exact: np.ndarray = self.hits == self.tokens
        return exact

    def of_rows(self, rows: np.ndarray) -> Judgement:
        """The part that is about these rows (indices)."""
        return Judgement(self.nll[rows], self.tokens[rows], self.hits[rows], self.choice[rows])

    def to_json(self) -> dict[str, list[Any]]:
        """JSON values from which :meth:`from_json` makes the same, to the last bit."""
        return {name: getattr(self, name).tolist() for name in ("nll", "tokens", "hits", "choice")}

    @classmethod
    def from_json(cls, values: Mapping[str, list[Any]]) -> Judgement:
        """What :meth:`to_json` gave."""
        return cls(np.array(values["nll"], np.float64), *(np.array(values[name], np.int64) for name in ("tokens", "hits", "choice")))


def judge(model: Any, rows: Sequence[HeldOutRow], batch_size: int, choice_ids: np.ndarray | None, task: Task) -> Judgement:
    """Judge ``rows``; each is read on its own, whatever batch it is in."""
    lengths = [len(row.ids) for row in rows]
    found = Judgement(np.zeros(len(rows)), *(np.zeros(len(rows), np.int64) for _ in range(3)))
    for batch in make_batches(lengths, batch_size, _MAX_LOGITS // model.config.get_text_config().vocab_size):
        part = _judge_batch(model, [rows[number] for number in batch], choice_ids)
        for name in ("nll", "tokens", "hits", "choice"):
            getattr(found, name)[batch] = getattr(part, name)
        task.advance(len(batch), tokens=sum(lengths[number] for number in batch))
    return found


def _judge_batch(model: Any, rows: Sequence[HeldOutRow], choice_ids: np.ndarray | None) -> Judgement:
    ids, attention = pad_right([row.ids for row in rows], 0), pad_right([np.ones_like(row.ids) for row in rows], 0)
    judged = pad_right([row.mask for row in rows], False)
    logits = _logits_before(model, ids, attention, judged)
    targets = ids[judged]
    counts = judged.sum(1).numpy()
    owner, starts = np.repeat(np.arange(len(rows)), counts), np.cumsum(counts) - counts
    nll, hits = _compare(logits, targets.to(logits.device))
    choice = _likeliest(logits[torch.from_numpy(starts)], choice_ids)
    return Judgement(np.bincount(owner, nll), counts, np.bincount(owner, hits).astype(np.int64), choice)


def pad_right(arrays: Sequence[np.ndarray], value: int | bool) -> torch.Tensor:
    """Tensor ``[rows, longest]`` of the arrays' dtype."""
    padded = np.full((len(arrays), max(len(array) for array in arrays)), value, arrays[0].dtype)
    for row, array in zip(padded, arrays, strict=True):
        row[: len(array)] = array
    return torch.from_numpy(padded)


@torch.inference_mode()
def _logits_before(model: Any, ids: torch.Tensor, attention: torch.Tensor, judged: torch.Tensor) -> torch.Tensor:
    """Logits ``[judged tokens, vocabulary]`` from which each judged token is predicted: those one position before it.

    The output head, a fifth of a small model's work, runs only on columns of the batch where some row is judged.
    """
    wanted = judged[:, 1:]
    columns = wanted.any(0).nonzero()[:, 0]
    arguments: dict[str, Any] = {"input_ids": ids, "attention_mask": attention}
    selects = "logits_to_keep" in inspect.signature(model.forward).parameters
    arguments |= {"logits_to_keep": columns} if selects else {}
    device = model.device
    logits = model(**{name: tensor.to(device) for name, tensor in arguments.items()}, use_cache=False).logits
    if not selects:
        logits = logits[:, columns.to(device)]
    kept: torch.Tensor = logits[wanted[:, columns].to(device)]
    return kept


def _compare(logits: torch.Tensor, targets: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Per judged token: negative log likelihood, and whether it was the likeliest."""
    chunks = list(zip(torch.split(logits, _CHUNK), torch.split(targets, _CHUNK), strict=True))
    nll = torch.cat([cross_entropy(chunk.float(), target, reduction="none") for chunk, target in chunks])
    hits = torch.cat([chunk.argmax(1) == target for chunk, target in chunks])
    return nll.double().cpu().numpy(), hits.cpu().numpy()


def _likeliest(logits: torch.Tensor, choice_ids: np.ndarray | None) -> np.ndarray:
    """Index of the choice with the highest logit, per row of ``logits`` ``[rows, vocabulary]``."""
    if choice_ids is None:
        return np.full(len(logits), -1, np.int64)
    chosen: np.ndarray = logits[:, torch.from_numpy(choice_ids).to(logits.device)].argmax(1).cpu().numpy()
    return chosen

"""Greedy answers to prompts, in batches: each is what the model would answer to its prompt alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pipeline.progress import Task
from stages.eval.judge import pad_right


@dataclass(frozen=True)
class Ending:
    """What ends an answer.

    Attributes:
        ids: tokens that do, the tokenizer's end-of-sequence token first where it has one.
        pad: token that fills up what others in a batch are longer; never read.
    """

    ids: tuple[int, ...]
    pad: int


@dataclass(frozen=True)
class Generated:
    """An answer: int64 ``[tokens]`` without the end token, and whether the model ended it rather than the limit."""

    ids: np.ndarray
    ended: bool


def generate(
    model: Any, prompts: Sequence[np.ndarray], ending: Ending, batch_size: int, max_new_tokens: int, task: Task
) -> list[Generated]:
    """Answers in the order of ``prompts`` (each int64 ``[tokens]``), of at most ``max_new_tokens``, or what the context leaves room for."""
    room = getattr(model.config.get_text_config(), "max_position_embeddings", None) or np.inf
    limits = [int(min(max_new_tokens, max(0, room - len(prompt)))) for prompt in prompts]
    found: dict[int, Generated] = {}
    for batch in _batches(prompts, limits, batch_size):
        answers = _answer([prompts[number] for number in batch], model, ending, limits[batch[0]])
        found |= dict(zip(batch, answers, strict=True))
        task.advance(len(batch), tokens=sum(len(answer.ids) for answer in answers))
    return [found[number] for number in range(len(prompts))]


def _batches(prompts: Sequence[np.ndarray], limits: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Numbers of prompts: those of a batch have one limit, and about one length."""
    order = sorted(range(len(prompts)), key=lambda number: (-limits[number], len(prompts[number]), number))
    for limit in dict.fromkeys(limits[number] for number in order):
        alike = [number for number in order if limits[number] == limit]
        yield from (alike[start : start + batch_size] for start in range(0, len(alike), batch_size))


@torch.inference_mode()
def _answer(prompts: Sequence[np.ndarray], model: Any, ending: Ending, limit: int) -> list[Generated]:
    """Prompts are padded on the left, so that every answer follows its prompt directly; positions are counted from its first token."""
    from transformers import GenerationConfig

    if not limit:
        return [Generated(np.zeros(0, np.int64), False) for _ in prompts]
    ids = pad_right([prompt[::-1] for prompt in prompts], ending.pad).flip(1)
    attention = pad_right([np.ones_like(prompt) for prompt in prompts], 0).flip(1)
    # In place of the model's own: what it does not set, generate() would take from there (repetition_penalty, say).
    ends = {"eos_token_id": list(ending.ids) or None, "pad_token_id": ending.pad}
    model.generation_config = GenerationConfig(do_sample=False, max_new_tokens=limit, **ends)  # type: ignore[no-untyped-call]
    generated = model.generate(ids.to(model.device), attention_mask=attention.to(model.device))
    return [until_end(answer, ending) for answer in generated[:, ids.shape[1] :].cpu().numpy()]


def until_end(ids: np.ndarray, ending: Ending) -> Generated:
    """An answer as far as its end token."""
    ends = np.flatnonzero(np.isin(ids, ending.ids))
    return Generated(ids[: ends[0]], True) if len(ends) else Generated(ids, False)

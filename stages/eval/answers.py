"""What each model answers to the first held-out prompts, greedily."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pipeline.progress import Task
from stages.eval.judge import pad_right
from stages.eval.rows import HeldOutRow


@dataclass(frozen=True)
class Answer:
    """One model's answer.

    Attributes:
        text: without the end token; other special tokens visible.
        ended: the model ended it, rather than ``eval.max_new_tokens``.
        matches: it reads as the reference does, apart from space around it.
    """

    text: str
    ended: bool
    matches: bool


def answer(model: Any, rows: Sequence[HeldOutRow], tokenizer: Any, batch_size: int, max_new_tokens: int, task: Task) -> list[Answer]:
    """Answer the prompt of each row: its ids before the first judged token."""
    answers = []
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        generated = _generate(model, [row.ids[: row.first] for row in batch], tokenizer, max_new_tokens)
        answers += [_read(ids, row, tokenizer) for ids, row in zip(generated, batch, strict=True)]
        task.advance(len(batch), tokens=sum(len(ids) for ids in generated))
    return answers


def reference_text(row: HeldOutRow, tokenizer: Any) -> str:
    """The answer that the data gives, up to its end token."""
    return decode(_until_end(row.reference, tokenizer)[0], tokenizer)


def decode(ids: np.ndarray, tokenizer: Any) -> str:
    """Text of the ids, special tokens visible."""
    return str(tokenizer.decode(ids.tolist(), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _read(ids: np.ndarray, row: HeldOutRow, tokenizer: Any) -> Answer:
    kept, ended = _until_end(ids, tokenizer)
    text = decode(kept, tokenizer)
    return Answer(text, ended, text.strip() == reference_text(row, tokenizer).strip())


def _until_end(ids: np.ndarray, tokenizer: Any) -> tuple[np.ndarray, bool]:
    ends = np.flatnonzero(ids == tokenizer.eos_token_id) if tokenizer.eos_token_id is not None else ids[:0]
    return (ids[: ends[0]], True) if len(ends) else (ids, False)


@torch.inference_mode()
def _generate(model: Any, prompts: Sequence[np.ndarray], tokenizer: Any, max_new_tokens: int) -> np.ndarray:
    """Ids ``[prompts, new tokens]``. Prompts are padded on the left, so that every answer follows its prompt directly."""
    from transformers import GenerationConfig

    ids = pad_right([prompt[::-1] for prompt in prompts], 0).flip(1)
    attention = pad_right([np.ones_like(prompt) for prompt in prompts], 0).flip(1)
    room = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    new = min(max_new_tokens, room - ids.shape[1]) if room else max_new_tokens
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id or tokenizer.eos_token_id or 0}
    # In place of the model's own: what it does not set, generate() would take from there (repetition_penalty, say).
    model.generation_config = GenerationConfig(do_sample=False, max_new_tokens=max(1, new), **ends)  # type: ignore[no-untyped-call]
    generated = model.generate(ids.to(model.device), attention_mask=attention.to(model.device))
    found: np.ndarray = generated[:, ids.shape[1] :].cpu().numpy()
    return found

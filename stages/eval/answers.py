"""What the models answer: to the first held-out prompts, shown side by side, and to every trained turn, compared with the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stages.eval.generate import Ending, Generated, until_end
from stages.eval.rows import HeldOutRow


@dataclass(frozen=True)
class Turn:
    """An unbroken run of judged tokens, which is what a prompt should get as an answer.

    Attributes:
        row: index of the held-out row.
        turn: number of the run in its row, from 0.
        prompt: int64 ``[tokens]``, all of the row before it.
        reference: int64 ``[tokens]``, the run.
    """

    row: int
    turn: int
    prompt: np.ndarray
    reference: np.ndarray


@dataclass(frozen=True)
class Answer:
    """One model's answer as it is shown.

    Attributes:
        text: without the end token; other special tokens visible.
        ended: the model ended it, rather than ``eval.max_new_tokens``.
        matches: it reads as the reference does, apart from space around it.
    """

    text: str
    ended: bool
    matches: bool


def turns_of(rows: Sequence[HeldOutRow]) -> list[Turn]:
    """Every turn of every row, in order."""
    return [
        Turn(number, turn, row.ids[:start], row.ids[start:stop])
        for number, row in enumerate(rows)
        for turn, (start, stop) in enumerate(row.runs())
    ]


def first_turns(rows: Sequence[HeldOutRow]) -> list[Turn]:
    """The first turn of every row."""
    return [turn for turn in turns_of(rows) if turn.turn == 0]


def find_ending(rows: Sequence[HeldOutRow], tokenizer: Any) -> Ending:
    """The end-of-sequence token, and special tokens that end turns of the data and stand nowhere inside one (``<|eot_id|>``)."""
    references = [turn.reference for turn in turns_of(rows)]
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    last = {int(reference[-1]) for reference in references} & special
    inside = {int(token) for reference in references for token in np.unique(reference[:-1])} if last else set()
    eos = [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (eos or [0])[0]
    return Ending((*eos, *sorted(last - inside - set(eos))), int(pad))


def read_answer(generated: Generated, turn: Turn, tokenizer: Any, ending: Ending) -> Answer:
    """The answer as text, beside the reference."""
    text = decode(generated.ids, tokenizer)
    return Answer(text, generated.ended, text.strip() == reference_text(turn, tokenizer, ending).strip())


def reference_text(turn: Turn, tokenizer: Any, ending: Ending) -> str:
    """The answer that the data gives, up to its end token."""
    return decode(until_end(turn.reference, ending).ids, tokenizer)


def decode(ids: np.ndarray, tokenizer: Any, *, special: bool = True) -> str:
    """Text of the ids; special tokens visible, or left out."""
    return str(tokenizer.decode(ids.tolist(), skip_special_tokens=not special, clean_up_tokenization_spaces=False))

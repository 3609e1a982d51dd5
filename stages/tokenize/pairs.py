"""Named rows of preferences, as data: which columns hold prompt and answers, and the texts around them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from stages.tokenize.columns import list_field, optional_text, text_in
from stages.tokenize.example import BadRow, Row, text_field


@dataclass(frozen=True)
class TurnStyle:
    """Texts around turns: ``turn`` has {role} and {text}, ``answer`` is what stands before an answer, ``end`` what ends it."""

    turn: str
    answer: str
    end: str


STYLES = {
    "chatml": TurnStyle("<|im_start|>{role}\n{text}<|im_end|>\n", "<|im_start|>assistant\n", "<|im_end|>"),
    "llama3": TurnStyle(
        "<|start_header_id|>{role}<|end_header_id|>\n\n{text}<|eot_id|>", "<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"
    ),
}

Turn = tuple[str, str]
"""Role and text."""

Parts = Callable[[Row], tuple[Sequence[Turn], tuple[str, ...]]]
"""From a row to the turns before the answer, and the answers: the better and the worse one, or the only one."""


def question(columns: Sequence[str], answers: Sequence[Sequence[str]], *, in_turns: bool = False) -> Parts:
    """A system column (may be missing), a question and answers, each in the first of some columns that a row has.

    ``in_turns``: an answer column holds a conversation, whose last turn is the answer.
    """

    def read(row: Row) -> tuple[Sequence[Turn], tuple[str, ...]]:
        system, asked = optional_text(row, "system"), text_field(row, _first(row, columns))
        turns = [("system", system)] if system else []
        read_answer = _last_text if in_turns else text_field
        return [*turns, ("user", asked)], tuple(read_answer(row, _first(row, names)) for names in answers)

    return read


def conversation(columns: Sequence[str]) -> Parts:
    """Whole conversations in each column: what stands before the last turn of the first is the prompt, the last turns are the answers."""

    def read(row: Row) -> tuple[Sequence[Turn], tuple[str, ...]]:
        turns = [(text_in(turn, "role", "a turn"), text_in(turn, "content", "a turn")) for turn in list_field(row, columns[0])]
        if len(turns) < 2:
            raise BadRow(f"column {columns[0]!r} holds an answer and nothing before it")
        return turns[:-1], tuple(_last_text(row, column) for column in columns)

    return read


def _last_text(row: Row, column: str) -> str:
    return text_in(list_field(row, column)[-1], "content", f"the last turn of column {column!r}")


def _first(row: Row, columns: Sequence[str]) -> str:
    return next((column for column in columns if row.get(column) is not None), columns[0])


_CHOSEN, _REJECTED = ("chosen",), ("rejected",)
_ANSWERS = (_CHOSEN, _REJECTED)
_COMPLETION = (("completion",),)

PAIR_FORMS: dict[str, Parts] = {
    "default": question(("prompt", "input", "question", "instruction"), (("chosen", "chosen_response"), ("rejected", "rejected_response"))),
    "argilla_chat": conversation(("chosen", "rejected")),
    "icr": question(("input",), _ANSWERS),
    "intel": question(("question",), _ANSWERS),
    "prompt_pairs": question(("prompt",), _ANSWERS),
    "ultra": question(("prompt",), _ANSWERS, in_turns=True),
}
"""What may follow ``chatml.`` and ``llama3.`` for pairs of answers."""

FEEDBACK_FORMS: dict[str, Parts] = {
    "argilla": question(("instruction",), _COMPLETION),
    "argilla_chat": conversation(("completion",)),
    "intel": question(("question",), _COMPLETION),
    "prompt_pairs": question(("prompt",), _COMPLETION),
    "ultra": question(("prompt",), _COMPLETION),
}
"""What may follow them for answers that are wanted or not."""

Texts = tuple[str, str]
"""A prompt, and an answer to it with what ends it."""


def styled(style: TurnStyle, parts: Parts) -> Callable[[Row], tuple[Texts, ...]]:
    """Prompt and answer, for each answer of a row."""

    def read(row: Row) -> tuple[Texts, ...]:
        turns, answers = parts(row)
        prompt = "".join(style.turn.format(role=role, text=text) for role, text in turns) + style.answer
        return tuple((prompt, answer + style.end) for answer in answers)

    return read


def nectar(row: Row) -> tuple[Texts, ...]:
    """Answers with a rank each, 1 for the best: the two best are the pair."""
    answers = sorted((_ranked(item) for item in list_field(row, "answers")), key=lambda item: item[0])
    if len(answers) < 2:
        raise BadRow("column 'answers' holds one answer, and two make a pair")
    prompt = f"<|system|>\n</s>\n<|user|>\n{text_field(row, 'prompt')}</s>\n<|assistant|>\n"
    return (prompt, answers[0][1]), (prompt, answers[1][1])


def _ranked(item: Any) -> tuple[float, str]:
    text = text_in(item, "answer", "an answer")
    rank = item.get("rank")
    if isinstance(rank, bool) or not isinstance(rank, int | float):
        raise BadRow("an answer has no number under 'rank'")
    return rank, text

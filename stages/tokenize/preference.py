"""Preferences: a prompt and two answers (DPO, IPO, SimPO, ORPO, reward models), or one that is wanted or not (KTO).

Prompt and answer are one text, tokenized as one, and the answer's characters are trained: a token that spans the border is
trained, and none is lost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline.options.dataset_types import Kind, full_name
from pipeline.options.datasets import DatasetFormat
from pipeline.options.row_format import RowFormat
from stages.tokenize.answers import Read, answer_texts, conversation_texts, orpo_texts, ready_texts, scored_texts
from stages.tokenize.columns import filled, optional_text
from stages.tokenize.example import BadRow, Example, Format, Piece, Preference, Row, text_field
from stages.tokenize.formats import Surroundings
from stages.tokenize.pairs import FEEDBACK_FORMS, PAIR_FORMS, STYLES, Texts, nectar, styled


def pair_format(entry: DatasetFormat, around: Surroundings, kind: Kind) -> Format:
    """Rows with a better and a worse answer."""
    read = _pair_reader(entry, around, kind)

    def pair(row: Row) -> Preference:
        chosen, rejected = read(row)
        return Preference(_whole(*chosen, "the better answer", around.eos), _whole(*rejected, "the worse answer", around.eos))

    return pair


def feedback_format(entry: DatasetFormat, around: Surroundings) -> Format:
    """Rows with one answer and whether it is wanted."""
    read, column = _feedback_reader(entry, around)

    def feedback(row: Row) -> Example:
        ((prompt, answer),) = read(row)
        made = _whole(prompt, answer, "the answer", around.eos)
        return Example(made.pieces, bos=True, eos=made.eos, labels=(_wanted(row, column),))

    return feedback


def scored_format(entry: DatasetFormat, around: Surroundings) -> Format:
    """Rows with two conversations that a reward model compares: each is one whole, and nothing is added to what its template prints."""
    read = scored_texts(entry, around)

    def scored(row: Row) -> Preference:
        chosen, rejected = (Example((Piece.whole(text, True),)) for text in read(row))
        return Preference(chosen, rejected)

    return scored


def _whole(prompt: str, answer: str, what: str, eos: str) -> Example:
    """Prompt and answer as one text. An end is added where the answer has none; what a template prints after its end is no matter."""
    for text, name in ((prompt, "the prompt"), (answer, what)):
        if not text:
            raise BadRow(f"{name} is empty")
    piece = Piece(prompt + answer, ((len(prompt), len(prompt) + len(answer)),))
    return Example((piece,), bos=True, eos=not answer.rstrip().endswith(eos))


def _wanted(row: Row, column: str) -> int:
    value = row.get(column)
    if not isinstance(value, bool) and value not in (0, 1):
        raise BadRow(f"column {column!r} is missing" if value is None else f"column {column!r} is neither true nor false")
    return int(value)


def _pair_reader(entry: DatasetFormat, around: Surroundings, kind: Kind) -> Read:
    if isinstance(entry.type, RowFormat):
        return _mapped(entry.type, ("chosen", "rejected"))
    name = None if entry.type is None else full_name(entry.type, kind)
    if name is None or name == "passthrough":
        return _ready(entry, around, ("chosen", "rejected"))
    style, _, form = name.partition(".")
    if style in STYLES:
        return styled(STYLES[style], PAIR_FORMS[form])
    if form == "nectar":
        return nectar
    if kind == "odds":
        return orpo_texts(entry, around)
    return conversation_texts(entry, around) if form == "argilla_chat" else answer_texts(entry, around)


def _feedback_reader(entry: DatasetFormat, around: Surroundings) -> tuple[Read, str]:
    if isinstance(entry.type, RowFormat):
        return _mapped(entry.type, ("completion",)), entry.type.field_label or "label"
    if entry.type is None:
        return _ready(entry, around, ("completion",)), "label"
    style, _, form = entry.type.partition(".")
    return styled(STYLES[style], FEEDBACK_FORMS[form]), "label"


def _mapped(mapping: RowFormat, answers: tuple[str, ...]) -> Read:
    """Columns and texts that the recipe gives. Parts have fixed names, whatever their columns are called."""
    columns = {name: getattr(mapping, f"field_{name}") or name for name in ("prompt", *answers)}
    read = {name: _text_of(column) for name, column in columns.items()}
    read["system"] = _optional_of(mapping.field_system or "system")
    texts = {name: filled(getattr(mapping, f"{name}_format") or f"{{{name}}}", read) for name in columns}

    def mapped(row: Row) -> tuple[Texts, ...]:
        prompt = texts["prompt"](row)
        return tuple((prompt, texts[name](row)) for name in answers)

    return mapped


def _text_of(column: str) -> Callable[[Row], str]:
    return lambda row: text_field(row, column)


def _optional_of(column: str) -> Callable[[Row], str]:
    return lambda row: optional_text(row, column)


def _ready(entry: DatasetFormat, around: Surroundings, answers: tuple[str, ...]) -> Read:
    """Columns that are ready: texts, or lists of messages, which the tokenizer's chat template puts into text."""
    in_turns = ready_texts(entry, around, answers) if around.chat_template is not None else None

    def ready(row: Row) -> tuple[Texts, ...]:
        if any(isinstance(row.get(column), list) for column in ("prompt", *answers)):
            if in_turns is None:
                raise BadRow("messages need a chat template, and the tokenizer has none")
            return in_turns(row)
        prompt = text_field(row, "prompt")
        return tuple((prompt, text_field(row, column)) for column in answers)

    return ready


def own_ready_format(function: Callable[[dict[str, Any]], dict[str, Any]], around: Surroundings, kind: Kind) -> Format:
    """Rows that a function of the user's own makes, with the columns that are ready for ``kind``."""
    entry = DatasetFormat(type=None)
    ready = feedback_format(entry, around) if kind == "feedback" else pair_format(entry, around, kind)
    return lambda row: ready(function(dict(row)))

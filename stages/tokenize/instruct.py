"""Instructions: a prompt and an answer, tokenized apart, so that no token spans both. The answer is trained, with an end after it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pipeline.options.dataset_types import UNSTYLED
from pipeline.options.datasets import DatasetFormat
from stages.tokenize.columns import Fill, columns_of, filled, list_field, optional_text
from stages.tokenize.example import BadRow, Example, Format, Piece, Row, text_field
from stages.tokenize.prompts import INSTRUCT_TYPES, REFLECTIONS, STYLES, InstructType, Preamble, Style

Prompt = Callable[[str, str, str], str]
"""From system text, instruction and input to the prompt."""


def instruct_format(name: str, entry: DatasetFormat, eos: str, train_on_inputs: bool) -> Format:
    """The format of a type of :data:`INSTRUCT_TYPES`. ``name``: its full name; the entry's type may add a style."""
    kind = _styled(INSTRUCT_TYPES[name], name, entry)
    instruction, answer = filled(kind.instruction, _READ), _first_of(kind.answer)
    prompt = prompt_of(kind.style, kind.preamble, always_system=kind.always_system)

    def instruct(row: Row) -> Example:
        given = optional_choices(row) if kind.input == "choices" else optional_text(row, kind.input)
        before = prompt(optional_text(row, kind.system), instruction(row), given)
        return answered(before, answer(row), eos, train_on_inputs, ends=kind.ends)

    return instruct


def _styled(kind: InstructType, name: str, entry: DatasetFormat) -> InstructType:
    style = str(entry.type).partition(":")[2] or (entry.conversation if name == "alpaca_chat" else None)
    return kind if not style or name in UNSTYLED else replace(kind, style=STYLES[style])


def prompt_of(style: Style, preamble: Preamble = ("", ""), *, always_system: bool = False) -> Prompt:
    """A prompt's parts joined in a style. A preamble stands where a type has no system column."""

    def prompt(system: str, instruction: str, given: str) -> str:
        head = system or (preamble[0] if given else preamble[1])
        text = style.system.format(system=head) if head or always_system else ""
        if given:
            return text + style.with_input.format(instruction=instruction, input=given)
        return text + style.without_input.format(instruction=instruction)

    return prompt


def answered(prompt: str, answer: str, eos: str, train_on_inputs: bool, *, ends: int = 1) -> Example:
    """Prompt and answer, and ``ends`` end-of-sequence tokens. An empty answer has none, and is nothing to learn by itself.

    Raises:
        BadRow: nothing would be trained.
    """
    if not answer and not (train_on_inputs and prompt):
        raise BadRow("the answer is empty")
    if not answer:
        return Example((Piece.whole(prompt, True),), bos=True)
    further = [Piece.whole(eos * (ends - answer.endswith(eos)), True)] if ends > 1 else []
    return Example((Piece.whole(prompt, train_on_inputs), Piece.whole(answer, True), *further), bos=True, eos=True)


def reflection_format(entry: DatasetFormat, train_on_inputs: bool) -> Format:
    """An answer, thoughts about it and a better answer, all trained. Prompt and answer are one text, tokenized as one.

    An empty first answer is one to be corrected; without a correction there is nothing to learn.
    """
    style, preamble, text = REFLECTIONS[str(entry.type).partition(":")[2]]
    prompt, fill = prompt_of(style, preamble), filled(text)

    def reflection(row: Row) -> Example:
        before = prompt("", text_field(row, "instruction"), optional_text(row, "input"))
        if not text_field(row, "corrected"):
            raise BadRow("column 'corrected' is empty")
        whole = before + fill(row)
        return Example((Piece(whole, ((0 if train_on_inputs else len(before), len(whole)),)),), bos=True, eos=True)

    return reflection


def optional_choices(row: Row) -> str:
    """A list of choices as lines."""
    return _choices(row) if row.get("choices") else ""


def _choices(row: Row) -> str:
    choices = list_field(row, "choices")
    if not all(isinstance(choice, str) for choice in choices):
        raise BadRow("column 'choices' holds something that is no text")
    return "\n".join(f'- "{choice}"' for choice in choices)


def _yaml(column: str) -> Callable[[Row], str]:
    def read(row: Row) -> str:
        import yaml  # type: ignore[import-untyped]

        if not row.get(column):
            raise BadRow(f"column {column!r} is {'empty' if column in row else 'missing'}")
        return str(yaml.safe_dump(row[column], default_flow_style=False))

    return read


_READ = {column: _yaml(column) for column in ("scores", "critiques")}


def _first_of(texts: tuple[str, ...]) -> Fill:
    """The first of several texts all of whose columns a row has. Empty where a column that the text is made of is empty."""
    fills = [(columns_of(text), filled(text, _READ)) for text in texts]

    def answer(row: Row) -> str:
        columns, fill = next((item for item in fills if all(row.get(column) is not None for column in item[0])), fills[-1])
        return "" if any(row.get(column) == "" for column in columns) else fill(row)

    return answer

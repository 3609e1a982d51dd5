"""completion and alpaca: fixed texts around a row's columns."""

from __future__ import annotations

from pipeline.options.datasets import DatasetFormat
from stages.tokenize.example import BadRow, Example, Format, Piece, Row, text_field
from stages.tokenize.formats import Surroundings

_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)
_WITHOUT_INPUT = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:\n"
)


INSTRUCT_TYPES = frozenset({"alpaca", "completion"})


def instruct_format(entry: DatasetFormat, around: Surroundings) -> Format:
    """The format of a type of :data:`INSTRUCT_TYPES`."""
    return completion_format(entry) if entry.type == "completion" else alpaca_format(around.options.train_on_inputs)


def completion_format(entry: DatasetFormat) -> Format:
    """Every token of the text is trained, and an end-of-sequence token after it."""

    def completion(row: Row) -> Example:
        text = text_field(row, entry.field)
        if not text:
            raise BadRow(f"column {entry.field!r} is empty")
        return Example((Piece.whole(text, True),), bos=True, eos=True)

    return completion


def alpaca_format(train_on_inputs: bool) -> Format:
    """Stanford Alpaca's prompt (tatsu-lab/stanford_alpaca): columns instruction, input (may be empty), output."""

    def alpaca(row: Row) -> Example:
        instruction, given = text_field(row, "instruction"), text_field(row, "input", default="")
        output = text_field(row, "output")
        if not output:
            raise BadRow("column 'output' is empty")
        prompt = _WITH_INPUT.format(instruction=instruction, input=given) if given else _WITHOUT_INPUT.format(instruction=instruction)
        return Example((Piece.whole(prompt, train_on_inputs), Piece.whole(output, True)), bos=True, eos=True)

    return alpaca

"""Instructions whose columns and texts the recipe gives, as a mapping in place of a type's name."""

from __future__ import annotations

from pipeline.options.row_format import RowFormat
from stages.tokenize.columns import optional_text
from stages.tokenize.example import BadRow, Example, Format, Row, text_field
from stages.tokenize.instruct import answered, prompt_of
from stages.tokenize.prompts import Style


def user_format(mapping: RowFormat, eos: str, train_on_inputs: bool) -> Format:
    """A row's system column, where it has one, replaces the mapping's system prompt, also when it is empty."""
    style = Style(
        mapping.system_format or "{system}",
        mapping.format or "{instruction} {input} ",
        mapping.no_input_format or "{instruction} ",
    )
    prompt = prompt_of(style)
    field_system, field_output = mapping.field_system or "system", mapping.field_output or "output"

    def user(row: Row) -> Example:
        system = optional_text(row, field_system) if field_system in row else mapping.system_prompt or ""
        given = optional_text(row, mapping.field_input or "input")
        before = prompt(system, text_field(row, mapping.field_instruction or "instruction"), given)
        answer = text_field(row, field_output)
        if not answer and not train_on_inputs:
            raise BadRow(f"column {field_output!r} is empty")
        return answered(before, answer, eos, train_on_inputs)

    return user

"""A dataset `type` of your own as a mapping: which columns, which texts around them.

One model for all kinds of training: instruction rows read the first block, preference rows the second, KTO rows the third;
all read the system column.
"""

from __future__ import annotations

from pipeline.options.schema import Nested, option


class RowFormat(Nested):
    """Columns of a row and the texts they are put into. Texts hold the names of their parts in braces; a brace itself is doubled."""

    system_prompt: str | None = option(None, "System text for every row; a system column replaces it.")
    system_format: str | None = option(None, "Text around the system prompt, with {system}; default {system}.")
    field_system: str | None = option(None, "Column of the system text; default system.", min_length=1)
    field_instruction: str | None = option(None, "Column of the instruction; default instruction.", min_length=1)
    field_input: str | None = option(None, "Column of the input; default input.", min_length=1)
    field_output: str | None = option(None, "Column of the answer; default output.", min_length=1)
    format: str | None = option(None, "Prompt of a row with input, with {instruction} and {input}; default both with a space after each.")
    no_input_format: str | None = option(None, "Prompt of a row without input, with {instruction}; default it with a space after it.")

    field_prompt: str | None = option(None, "Preference rows: column of the prompt; default prompt.", min_length=1)
    field_chosen: str | None = option(None, "Preference rows: column of the better answer; default chosen.", min_length=1)
    field_rejected: str | None = option(None, "Preference rows: column of the worse answer; default rejected.", min_length=1)
    prompt_format: str | None = option(None, "Preference rows: text around the prompt, with {prompt} and {system}; default {prompt}.")
    chosen_format: str | None = option(None, "Preference rows: text around the better answer, with {chosen}; default {chosen}.")
    rejected_format: str | None = option(None, "Preference rows: text around the worse answer, with {rejected}; default {rejected}.")

    field_completion: str | None = option(None, "KTO rows: column of the answer; default completion.", min_length=1)
    field_label: str | None = option(None, "KTO rows: column that says whether the answer is wanted; default label.", min_length=1)
    completion_format: str | None = option(None, "KTO rows: text around the answer, with {completion}; default {completion}.")


PARTS: dict[str, tuple[str, ...]] = {
    "system_format": ("system",),
    "format": ("instruction", "input"),
    "no_input_format": ("instruction",),
    "prompt_format": ("prompt", "system"),
    "chosen_format": ("chosen",),
    "rejected_format": ("rejected",),
    "completion_format": ("completion",),
}
"""Which parts each text may name."""

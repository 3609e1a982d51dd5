"""A dataset `type` of your own as a mapping: which columns, which texts around them.

One model for all kinds of training: instruction rows read the first block, preference rows the second and third.
"""

from __future__ import annotations

from pipeline.options.schema import Nested, not_yet


class RowFormat(Nested):
    """Columns of a row and the texts they are put into. Texts hold the names of their parts in braces."""

    system_prompt: str | None = not_yet("System text for every row; a system column replaces it.")
    system_format: str | None = not_yet("Text around the system prompt, with {system}.")
    field_system: str | None = not_yet("Column of the system text; default system.")
    field_instruction: str | None = not_yet("Column of the instruction; default instruction.")
    field_input: str | None = not_yet("Column of the input; default input.")
    field_output: str | None = not_yet("Column of the answer; default output.")
    format: str | None = not_yet("Prompt of a row with input, with {instruction} and {input}.")
    no_input_format: str | None = not_yet("Prompt of a row without input, with {instruction}.")

    field_prompt: str | None = not_yet("Preference rows: column of the prompt; default prompt.")
    field_chosen: str | None = not_yet("Preference rows: column of the better answer; default chosen.")
    field_rejected: str | None = not_yet("Preference rows: column of the worse answer; default rejected.")
    prompt_format: str | None = not_yet("Preference rows: text around the prompt, with {prompt} and {system}.")
    chosen_format: str | None = not_yet("Preference rows: text around the better answer, with {chosen}.")
    rejected_format: str | None = not_yet("Preference rows: text around the worse answer, with {rejected}.")

    field_completion: str | None = not_yet("KTO rows: column of the answer; default completion.")
    field_label: str | bool | None = not_yet("KTO rows: column that says whether the answer is wanted; default label.", idle=())
    completion_format: str | None = not_yet("KTO rows: text around the answer, with {completion}.")

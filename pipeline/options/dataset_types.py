"""Names that a dataset's `type` may have: those that work, those of Axolotl's that do not yet, and the user's own."""

from __future__ import annotations

import difflib
import re

from pipeline.options.row_format import RowFormat

WORKING = ("chat_template", "completion", "alpaca")

TO_COME = (
    *("alpaca", "alpaca_chat", "alpaca_instruct", "alpaca_w_system", "orcamini", "explainchoice", "concisechoice", "summarizetldr"),
    *("jeopardy", "oasst", "gpteacher", "reflection", "context_qa", "creative_acr", "metharme", "pygmalion", "llama2_chat", "messages"),
    *("input_output", "pretrain", "stepwise_supervised", "bradley_terry", "chat_template", "chatml", "llama3", "zephyr", "passthrough"),
    *("user_defined", "orpo", "completion"),
)
"""First parts of Axolotl's type names; a variant follows a dot or a colon (``alpaca_chat.load_qa``, ``oasst:chat``)."""


def type_problem(value: str | RowFormat) -> tuple[str, str] | None:
    """What is wrong with a dataset's type and what would work, or ``None``."""
    works = f"what works: {', '.join(WORKING)}, or a dotted name of your own such as my_rows.to_messages"
    if isinstance(value, RowFormat):
        return "a mapping of columns is not yet supported", works
    if value in WORKING:
        return None
    first = re.split(r"[.:]", value)[0]
    if first == "sharegpt":
        return "refused: Axolotl removed sharegpt", "write `type: chat_template` with `field_messages` and `message_property_mappings`"
    if first in TO_COME:
        return "not yet supported", works
    if "." in value and not value.startswith(".") and all(part.isidentifier() for part in value.split(".")):
        return None
    near = difflib.get_close_matches(value, (*WORKING, *TO_COME), n=1, cutoff=0.7)
    return "no such type", f"did you mean `{near[0]}`?" if near else works

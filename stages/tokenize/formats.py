"""From a dataset entry to the function that turns its rows into examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.options.datasets import DatasetFormat
from pipeline.options.views import TokenizeOptions
from stages.tokenize.example import Format


@dataclass(frozen=True)
class Surroundings:
    """What formats need to know besides their own entry.

    Attributes:
        options: of the whole stage.
        tokenizer: folder of data/tokenizer.
        special_tokens: texts of the special tokens by name (``bos_token``, ``eos_token``, …).
        chat_template: the tokenizer's, where it has one.
    """

    options: TokenizeOptions
    tokenizer: Path
    special_tokens: Mapping[str, str]
    chat_template: str | None

    @property
    def eos(self) -> str:
        """Text of the end-of-sequence token."""
        return self.special_tokens["eos_token"]


def format_of(entry: DatasetFormat, around: Surroundings) -> Format:
    """The format that ``entry.type`` names."""
    from stages.tokenize.chat import chat_format
    from stages.tokenize.instruct import INSTRUCT_TYPES, instruct_format
    from stages.tokenize.own import own_format

    if entry.type == "chat_template":
        return chat_format(entry, around)
    if entry.type in INSTRUCT_TYPES:
        return instruct_format(entry, around)
    return own_format(entry, around.tokenizer, lambda: chat_format(entry, around))

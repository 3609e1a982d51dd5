"""One conversation through the format of its dataset entry, its trained characters between brackets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.options.views import RecipeOptions, TokenizeOptions
from stages.tokenize.chat import ChatFormat
from stages.tokenize.example import Example
from stages.tokenize.formats import Surroundings
from tests.tiny import CHATML, MINIMAL

SPECIAL_TOKENS = {"bos_token": "<s>", "eos_token": "<|im_end|>"}

CALLS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}"
    "{{ m.content }}{% for call in m.tool_calls %}<call>{{ call.function.name }}({{ call.function.arguments | tojson }})</call>"
    "{% endfor %}<|im_end|>\n{% endfor %}"
)
"""chatml with reasoning and tool calls."""


def chat_format(
    template: str | None = CHATML, tokenizer: Path = Path("none"), top: dict[str, Any] | None = None, **entry: Any
) -> ChatFormat:
    """The format of an entry with these keys; ``top`` are options outside of it, ``template`` is data/tokenizer's."""
    recipe = RecipeOptions.model_validate(MINIMAL | {"datasets": [{"path": "x.jsonl", "type": "chat_template"} | entry]} | (top or {}))
    options = TokenizeOptions.model_validate(recipe.model_dump())
    return ChatFormat(options.datasets[0], Surroundings(options, tokenizer, SPECIAL_TOKENS, template))


def marked(row: dict[str, Any], template: str = CHATML, **entry: Any) -> str:
    """The rendered row, with every trained stretch between « and »."""
    return mark(chat_format(template, **entry)(row))


def mark(example: Example) -> str:
    (piece,) = example.pieces
    trained = {place for start, end in piece.trained for place in range(start, end)}
    text = ""
    for place in range(len(piece.text) + 1):
        before, here = place - 1 in trained, place in trained
        text += ("«" if here and not before else "»" if before and not here else "") + piece.text[place : place + 1]
    return text

"""Texts on which engines are compared before one of them is used."""

from __future__ import annotations

import json
import random
from pathlib import Path

from stages.tokenize.span_masks import Span

_WORDS = ["the", "Hello", "don't", "I'LL", "naïve", "Straße", "12345", "3.14", "été"]
_WORDS += ["日本語", "こんにちは", "한국어", "привет", "שלום", "مرحبا"]
_MARKS = [*" .,…—'", "  ", "\n", "\n\n", "\r\n", "\t", "   \n ", "!?", "'s", "()", "{}", "</a>", "\u00a0", "\u200b", "e\u0301"]
_MARKS += ["▁", "<0x0A>"]
_WIDE = [*"🙂👍🏽𝔘ﷺ½٣Ⅷǅ", "👩‍🔧", "\u0000", "\u007f", "\ufeff", "क्षि", "ไทย"]
_CODE = ["a", "B", "7", "_", "\\", "#", "=>", "::"]


def probes(path: Path) -> list[str]:
    """Every kind of character, spaces, numbers and the added tokens of a tokenizer.json, in seeded disorder."""
    settings = json.loads(path.read_text(encoding="utf-8"))
    added = [token["content"] for token in settings["added_tokens"]][:64]
    draw = random.Random(0)
    pools = [_WORDS, _MARKS, _WIDE, added or _WORDS, _CODE]
    made = ["".join(draw.choice(draw.choice(pools)) for _ in range(draw.randint(1, 24))) for _ in range(1500)]
    anything = ["".join(chr(draw.randint(0x20, 0x2FFF)) for _ in range(40)) for _ in range(200)]
    return [*made, *anything, draw.choice(_WORDS) * 300, " " * 200, "\n" * 90]


def probe_spans(texts: list[str]) -> list[list[Span]]:
    """Stretches to train in each text, of any length, apart from each other, in seeded disorder."""
    draw = random.Random(1)
    cuts = [sorted(draw.choices(range(len(text) + 1), k=2 * draw.randint(0, 3))) for text in texts]
    return [list(zip(places[::2], places[1::2], strict=True)) for places in cuts]

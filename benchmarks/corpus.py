"""Text and conversations to measure with: what is installed on this computer, cut in a seeded way. The same packages give the same rows."""

from __future__ import annotations

import json
import random
import sysconfig
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

_SUFFIXES = (".py", ".md", ".rst", ".txt", ".pyi")


@lru_cache(maxsize=1)
def text(characters: int = 30_000_000) -> str:
    """Sources and notes of installed packages, in order of their paths."""
    found, size = [], 0
    for path in sorted(Path(sysconfig.get_paths()["purelib"]).rglob("*")):
        if path.suffix in _SUFFIXES and path.stat().st_size > 2000:
            try:
                found.append(path.read_text(encoding="utf-8"))
            except UnicodeDecodeError:
                continue
            size += len(found[-1])
            if size > characters:
                break
    return "\n".join(found)


def conversation(draw: random.Random, turns: int, characters: int) -> dict[str, Any]:
    """``turns`` messages of ``characters`` in all; answers are four times as long as questions."""
    corpus, messages = text(), []
    for turn in range(turns):
        size = max(4, int(characters / turns * (1.6 if turn % 2 else 0.4)))
        start = draw.randrange(len(corpus) - size)
        messages.append({"role": "assistant" if turn % 2 else "user", "content": corpus[start : start + size]})
    return {"messages": messages}


def chats(rows: int, median: float = 7.4, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Conversations of two to eight turns, log-normal in length (about 650 tokens on average for the default)."""
    draw = random.Random(seed)
    for _ in range(rows):
        characters = int(min(12_000, max(60, draw.lognormvariate(median, 0.8))))
        made = conversation(draw, draw.choice([2, 4, 4, 6, 8]), characters)
        if draw.random() < 0.3:
            made["messages"].insert(0, {"role": "system", "content": "You are a helpful assistant."})
        yield made


def documents(rows: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Texts of about 2,000 characters."""
    draw, corpus = random.Random(seed), text()
    for _ in range(rows):
        size = int(min(20_000, max(100, draw.lognormvariate(7.3, 0.8))))
        start = draw.randrange(len(corpus) - size)
        yield {"text": corpus[start : start + size]}


def write(path: Path, rows: Iterator[dict[str, Any]]) -> Path:
    """As JSON Lines."""
    with path.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return path

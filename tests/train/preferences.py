"""What the tests of preference training start from: short random rows with two answers, one that is wanted or not, or steps."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline.tokens import TokenTable, TokenWriter
from tests.tiny import publish_artifact, publish_bins, save_model, save_tokenizer

ROWS, HELD_OUT = 8, 5

FULL: dict[str, Any] = {"num_epochs": 2, "micro_batch_size": 2, "gradient_accumulation_steps": 2, "rl_beta": 0.5, "learning_rate": 1e-2}
"""Eight rows, four to a step: two steps an epoch, four in all."""

LORA: dict[str, Any] = FULL | {"adapter": "lora", "lora_r": 4, "lora_target_linear": True}


class Row(NamedTuple):
    """Ids and mask; the same of another answer; labels."""

    ids: list[int]
    mask: list[int]
    rejected: tuple[list[int], list[int]] | None = None
    labels: list[int] | None = None


def _answered(rng: random.Random, prompt: list[int], shortest: int = 2) -> tuple[list[int], list[int]]:
    answer = [rng.randrange(3, 259) for _ in range(rng.randint(shortest, 7))]
    return prompt + answer, [0] * len(prompt) + [1] * len(answer)


def pair_rows(count: int = ROWS + HELD_OUT, seed: int = 0) -> list[Row]:
    """Prompts of 1 to 6 tokens with two answers of 2 to 7."""
    rng = random.Random(seed)
    prompts = [[rng.randrange(3, 259) for _ in range(rng.randint(1, 6))] for _ in range(count)]
    return [Row(*_answered(rng, prompt), rejected=_answered(rng, prompt)) for prompt in prompts]


def feedback_rows(count: int = ROWS + HELD_OUT, seed: int = 0) -> list[Row]:
    """Prompts with one answer, two of three wanted."""
    rng = random.Random(seed)
    prompts = [[rng.randrange(3, 259) for _ in range(rng.randint(1, 6))] for _ in range(count)]
    return [Row(*_answered(rng, prompt), labels=[int(number % 3 != 0)]) for number, prompt in enumerate(prompts)]


def step_rows(count: int = ROWS + HELD_OUT, seed: int = 0) -> list[Row]:
    """Rows of 6 to 14 tokens of which every third ends a step."""
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        length = rng.randint(6, 14)
        mask = [int(place % 3 == 2) for place in range(length)]
        rows.append(Row([rng.randrange(3, 259) for _ in range(length)], mask, labels=[rng.randint(0, 1) for _ in range(sum(mask))]))
    return rows


def build(workspace: Path, rows: Sequence[Row], held_out: int = HELD_OUT, **model: Any) -> Path:
    """``workspace/data`` with everything that train reads; the last ``held_out`` rows are for evaluation."""
    data = workspace / "data"
    publish_artifact(data, "base", lambda folder: save_model(folder, **model))
    publish_artifact(data, "tokenizer", save_tokenizer)

    def fill(folder: Path) -> None:
        with TokenWriter(folder, np.dtype(np.uint16)) as writer:
            for number, row in enumerate(rows):
                rejected = None if row.rejected is None else (np.asarray(row.rejected[0]), np.asarray(row.rejected[1]))
                labels = None if row.labels is None else np.asarray(row.labels)
                writer.add(np.asarray(row.ids), np.asarray(row.mask), 0, number, rejected, labels)

    source = {"name": "train-00", "split": "train", "path": "rows.jsonl", "file": "rows.jsonl", "rows": len(rows), "type": None}
    publish_artifact(data, "tokens", fill, sources=[source], rows=len(rows), tokens=sum(len(row.ids) for row in rows))
    train = len(rows) - held_out
    publish_bins(data, [[number] for number in range(train)], [[number] for number in range(train, len(rows))])
    assert len(TokenTable(data / "tokens")) == len(rows)
    return workspace

"""What these tests start from: sixteen short prompts, a tiny model, and functions that score answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from pipeline.tokens import TokenWriter, id_dtype
from tests.tiny import publish_artifact, publish_bins, save_model, save_tokenizer

REWARDS = "tests.train.online.rewards"
GRPO: dict[str, Any] = {"rl": "grpo", "max_steps": 3, "micro_batch_size": 4, "gradient_accumulation_steps": 2, "learning_rate": 1e-2}
TRL: dict[str, Any] = {"num_generations": 4, "max_completion_length": 6, "reward_funcs": [f"{REWARDS}.digits"]}


def grpo(*, trl: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    """Options: eight answers a step, four to each of two prompts; ``trl`` on top of the usual block."""
    return GRPO | {"trl": TRL | (trl or {})} | options


def build(workspace: Path, *, prompts: int = 16, held_out: Sequence[int] = (), messages: bool = False, **model: Any) -> Path:
    """``workspace/data`` with everything that train reads. Each prompt is a bin; ``held_out``: numbers of those that are."""
    data = workspace / "data"
    publish_artifact(data, "base", lambda folder: save_model(folder, **model))
    publish_artifact(data, "tokenizer", save_tokenizer)

    tokenizer = Tokenizer.from_file(str(data / "tokenizer" / "tokenizer.json"))

    def fill(folder: Path) -> None:
        with TokenWriter(folder, id_dtype(259)) as writer:
            for number in range(prompts):
                text = f"{number} + {number % 5} ="
                ids = np.asarray(tokenizer.encode(text).ids)
                prompt: Any = [{"role": "user", "content": text}] if messages else text
                reference = json.dumps({"answer": number + number % 5, "prompt": prompt}, sort_keys=True)
                writer.add(ids, np.zeros(len(ids), np.uint8), 0, number, reference=reference)

    source = {"name": "train-00", "split": "train", "path": "rows.jsonl", "file": "rows.jsonl", "rows": prompts, "type": None}
    publish_artifact(data, "tokens", fill, sources=[source], rows=prompts, tokens=0)
    publish_bins(data, [[number] for number in range(prompts) if number not in held_out], [[number] for number in held_out])
    return workspace


def completions(folder: Path) -> list[dict[str, Any]]:
    """The lines of completions.jsonl."""
    return [json.loads(line) for line in (folder / "completions.jsonl").read_text(encoding="utf-8").splitlines()]

"""A project whose rows went through tokenize, dedupe, pack and train: what traces, exports and forecasts are made from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stages.dedupe import STAGE as DEDUPE
from stages.pack import STAGE as PACK
from stages.tokenize import STAGE as TOKENIZE
from stages.train import STAGE as TRAIN
from tests.tiny import publish_artifact, run_stage, save_model, save_tokenizer

OPTIONS: dict[str, Any] = {
    "datasets": [{"path": "./my/a.jsonl", "type": "chat_template"}, {"path": "./other/a.jsonl", "type": "chat_template"}],
    "dataset_exact_deduplication": True,
    "sequence_len": 128,
    "sample_packing": True,
    "val_set_size": 2,
    "num_epochs": 2,
    "gradient_accumulation_steps": 2,
}

LONG, MALFORMED, BLANK, TWIN = 4, 1, 2, 3
"""Rows of the first file with a fate of their own; the twin equals row 0."""

NUMBERS = (7, 2, 40)
"""Of the second file these rows were taken, in this order."""


def chat(question: str, answer: str) -> dict[str, Any]:
    return {"id": "q", "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def rows_of_first() -> list[dict[str, Any] | str]:
    rows: list[dict[str, Any] | str] = [chat(f"what is {number} and é?", f"it is {number * 7} ✓") for number in range(14)]
    rows[MALFORMED], rows[BLANK], rows[TWIN], rows[LONG] = '{"messages": [', "", rows[0], chat("long " * 30, "too long")
    return rows


def rows_of_second() -> list[dict[str, Any] | str]:
    return [chat(f"from afar {number}", "answered") for number in NUMBERS]


def build(project: Path, **options: Any) -> Path:
    """A project folder with all of it; ``options`` on top of :data:`OPTIONS`."""
    for name in ("dvc.yaml", "params.yaml"):
        (project / name).touch()
    publish_sources(project / "data", [(rows_of_first(), None), (rows_of_second(), NUMBERS)])
    publish_artifact(project / "data", "tokenizer", save_tokenizer, vocab_size=259)
    publish_artifact(project / "data", "base", save_model, model_type="llama", revision=None, source=None)
    for stage in (TOKENIZE, DEDUPE, PACK, TRAIN):
        run_stage(stage, project, OPTIONS | options)
    return project


def publish_sources(data: Path, files: Sequence[tuple[Sequence[Any], Sequence[int] | None]]) -> None:
    """``data/raw`` as fetch writes it."""
    sources = []

    def fill(folder: Path) -> None:
        for at, (rows, numbers) in enumerate(files):
            slot, path = f"train-{at:02d}", ("./my/a.jsonl", "./other/a.jsonl")[at]
            (folder / slot).mkdir()
            lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
            (folder / slot / "00000.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
            if numbers is not None:
                np.asarray(numbers, "<i8").tofile(folder / slot / "00000.numbers")
            names = {"name": slot, "split": "train", "path": path, "file": "a.jsonl", "revision": None}
            where = {"rows_file": f"{slot}/00000.jsonl", "numbers": None if numbers is None else f"{slot}/00000.numbers"}
            sources.append(names | where)

    publish_artifact(data, "raw", fill, sources=sources)

"""Hand-made raw data and a tokenizer, tokenized, and the rows read back as text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.tokens import TokenTable
from stages.tokenize import STAGE
from tests.tiny import CHATML, publish_artifact, run_stage, save_tokenizer


def tokenize(workspace: Path, lines: Sequence[Any], *, chat_template: str = CHATML, **options: Any) -> TokenTable:
    """Tokenize rows (objects, or raw text lines) of one dataset entry; ``options`` are its keys, or train_on_inputs."""
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)

    def fill(folder: Path) -> None:
        (folder / "train-00").mkdir()
        (folder / "train-00" / "rows.jsonl").write_text(text, encoding="utf-8")

    source = {"name": "train-00", "split": "train", "path": "rows.jsonl", "file": "rows.jsonl", "format": "jsonl"}
    publish_artifact(workspace / "data", "raw", fill, sources=[source])
    publish_artifact(workspace / "data", "tokenizer", lambda folder: save_tokenizer(folder, chat_template))
    top = {"train_on_inputs": options.pop("train_on_inputs", False)}
    entry = {"path": "rows.jsonl", "type": "chat_template"} | options
    run_stage(STAGE, workspace, top | {"datasets": [entry]})
    return TokenTable(workspace / "data" / "tokens")


SPECIAL = {0: "<|endoftext|>", 1: "<|im_start|>", 2: "<|im_end|>"}


def decode(ids: Sequence[int]) -> str:
    """The tiny tokenizer backwards, by its definition: ids from 3 are the sorted byte-level alphabet."""
    from tokenizers import decoders, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    decoder, text, run = decoders.ByteLevel(), "", []
    for token in [*map(int, ids), -1]:
        if token >= 3:
            run.append(alphabet[token - 3])
            continue
        text, run = text + decoder.decode(["".join(run)]) + SPECIAL.get(token, ""), []
    return text


def trained_text(table: TokenTable, row: int) -> str:
    return decode(table.ids(row)[table.mask(row) == 1])


def full_text(table: TokenTable, row: int) -> str:
    return decode(table.ids(row))


def chat(*turns: tuple[str, str]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}

"""Hand-made raw data and a tokenizer, tokenized, and the rows read back as text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.tokens import TokenTable
from stages.tokenize import STAGE
from tests.tiny import CHATML, publish_artifact, run_stage, save_tokenizer


def tokenize(workspace: Path, lines: Sequence[Any], **settings: Any) -> TokenTable:
    """Tokenize rows (objects, or raw text lines) of one dataset entry; ``settings`` as of :func:`tokenize_file`."""
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    return tokenize_file(workspace, "rows.jsonl", text.encode("utf-8"), **settings)


def tokenize_file(workspace: Path, name: str, content: bytes, *, chat_template: str = CHATML, **options: Any) -> TokenTable:
    """Tokenize JSON Lines of a source file ``name``; ``options`` are the keys of its dataset entry, or train_on_inputs."""
    publish_raw(workspace / "data", name, content)
    publish_artifact(workspace / "data", "tokenizer", lambda folder: save_tokenizer(folder, chat_template))
    top = {"train_on_inputs": options.pop("train_on_inputs", False), "tokenize": {"strict": options.pop("strict", False)}}
    entry = {"path": "rows.jsonl", "type": "chat_template"} | options
    run_stage(STAGE, workspace, top | {"datasets": [entry]})
    return TokenTable(workspace / "data" / "tokens")


def publish_raw(data: Path, name: str, content: bytes, numbers: Sequence[int] | None = None) -> None:
    """``data/raw`` of one training source whose rows, as JSON Lines, are ``content``."""
    files = {"train-00/00000.jsonl": content}
    if numbers is not None:
        files["train-00/00000.numbers"] = np.asarray(numbers, "<i8").tobytes()

    def fill(folder: Path) -> None:
        (folder / "train-00").mkdir()
        for file, made in files.items():
            (folder / file).write_bytes(made)

    source = {"name": "train-00", "split": "train", "path": f"./my/{name}", "file": name, "revision": None}
    facts = source | {"rows_file": "train-00/00000.jsonl", "numbers": None if numbers is None else "train-00/00000.numbers"}
    publish_artifact(data, "raw", fill, sources=[facts])


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

"""Hand-made raw data and a tokenizer, tokenized, and the rows read back as text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.tokens import TokenTable
from stages.tokenize import STAGE
from tests.tiny import CHATML, publish_artifact, run_stage, save_tokenizer


def tokenize(workspace: Path, lines: Sequence[Any], **settings: Any) -> TokenTable:
    """Tokenize rows (objects, or raw text lines) of one dataset entry; ``settings`` as of :func:`tokenize_file`."""
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    return tokenize_file(workspace, "rows.jsonl", text.encode("utf-8"), **settings)


def tokenize_file(workspace: Path, name: str, content: bytes, *, chat_template: str = CHATML, **options: Any) -> TokenTable:
    """Tokenize a file ``name``, .jsonl or .json, of these bytes; ``options`` are the keys of its dataset entry, or train_on_inputs."""

    def fill(folder: Path) -> None:
        (folder / "train-00").mkdir()
        (folder / "train-00" / name).write_bytes(content)

    source = {"name": "train-00", "split": "train", "path": f"./my/{name}", "file": name, "format": name.rpartition(".")[2]}
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

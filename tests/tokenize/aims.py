"""Rows tokenized for something else than predicting text: preferences, rewards, steps."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, processors

from pipeline.artifact import open_artifact
from pipeline.tokens import TokenTable
from stages.tokenize import STAGE
from tests.tiny import CHATML, publish_artifact, run_stage, save_tokenizer
from tests.tokenize.rows import decode, publish_raw


def tokenize_for(
    workspace: Path, aim: Mapping[str, Any], rows: Sequence[Any], *, template: str = CHATML, begins: bool = False, **entry: Any
) -> TokenTable:
    """Tokenize rows of one dataset entry.

    ``aim`` are top-level options such as rl, ``template`` is the tokenizer's; ``begins``: it puts <|im_start|> before every text.
    """

    def fill(folder: Path) -> None:
        save_tokenizer(folder, template)
        path = folder / "tokenizer.json"
        if begins:
            made = Tokenizer.from_file(str(path))
            made.post_processor = processors.TemplateProcessing(single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)])
            made.save(str(path))

    publish_raw(workspace / "data", "rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode("utf-8"))
    publish_artifact(workspace / "data", "tokenizer", fill)
    run_stage(STAGE, workspace, {**aim, "datasets": [{"path": "rows.jsonl"} | entry]})
    return TokenTable(workspace / "data" / "tokens")


def left_out(workspace: Path) -> dict[str, int]:
    """Reasons for which rows were left out, and how many."""
    counts: dict[str, int] = open_artifact(workspace / "data" / "tokens").content["sources"][0]["rejected"]
    return counts


def answers(table: TokenTable, row: int) -> tuple[tuple[str, str], ...]:
    """Whole text and trained text of both answers of a row, or of its only one."""
    pairs = [(table.ids(row), table.mask(row))]
    pairs += [(table.rejected_ids(row), table.rejected_mask(row))] if table.paired else []
    return tuple((decode(ids.tolist()), decode(ids[mask == 1].tolist())) for ids, mask in pairs)

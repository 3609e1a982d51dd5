"""README.md of an export: what its columns mean, and the header by which `datasets` finds the splits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TEXT = """# Packed rows

One row is one packed sequence of at most {sequence_len} tokens.

| column | what it holds |
| --- | --- |
| `input_ids` | token ids of all documents of the sequence, one after another |
| `labels` | the same ids where a token is trained, -100 elsewhere and at the first token of every document |
| `position_ids` | positions that start from 0 in every document; attention must not cross from one to the next |
| `seq_lengths` | tokens of each document |

{counts}
Rows are in the order of the plan; whoever trains on them shuffles them. The files load with `datasets.load_dataset` and the
name of this folder. manifest.json has the SHA-256 of every file and of the token stream they hold.
"""


def readme(kind: str, splits: Mapping[str, Mapping[str, int]], packed: Mapping[str, Any]) -> str:
    """The text.

    Args:
        kind: arrow, parquet or jsonl.
        splits: counts by split, as :func:`pipeline.export.files.write_split` returns them.
        packed: what the manifest of data/packed says.
    """
    files = "".join(f"  - split: {split}\n    path: {split}/*.{kind}\n" for split in splits)
    lines = ["| split | rows | documents | tokens | trained |\n| --- | ---: | ---: | ---: | ---: |\n"]
    names = ("rows", "documents", "tokens", "trained_tokens")
    lines += [f"| {split} | {' | '.join(f'{facts[name]:,}' for name in names)} |\n" for split, facts in splits.items()]
    body = _TEXT.format(sequence_len=packed["sequence_len"], counts="".join(lines))
    return f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}---\n\n{body}"

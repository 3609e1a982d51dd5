"""One block of rows to tokens: what a worker does, in this process or in another."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.options.datasets import DatasetFormat
from pipeline.options.views import TokenizeOptions
from pipeline.process import die_with_parent
from pipeline.tokens import TokenRows, id_dtype
from stages.tokenize.blocks import Block
from stages.tokenize.cache import BlockCache, Tokens
from stages.tokenize.encode import Encoder, as_pair
from stages.tokenize.engine import Name
from stages.tokenize.example import BadRow, Example, Format, Made, Preference, Prompt, Row, Tokenized
from stages.tokenize.formats import Surroundings, format_of
from stages.tokenize.rows import read_rows


@dataclass(frozen=True)
class Task:
    """A block to tokenize.

    Attributes:
        entry: list and number of its dataset entry (``train-00``).
        path: the rows file.
        key: what its tokens are kept under.
    """

    entry: str
    path: Path
    block: Block
    key: str


@dataclass
class Worker:
    """A tokenizer, opened once, and the format of each dataset entry, made when it is first needed."""

    options: TokenizeOptions
    tokenizer: Path
    cache: Path
    engine: Name
    _formats: dict[str, Format] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.encoder = Encoder(self.tokenizer, self.engine)
        self._cache = BlockCache(self.cache)

    def format(self, name: str) -> Format:
        """The format of the entry ``name``.

        Raises:
            RegrowError: it cannot be used with this tokenizer.
        """
        if name not in self._formats:
            around = Surroundings(self.options, self.tokenizer, self.encoder.special_tokens, self.encoder.chat_template)
            self._formats[name] = format_of(entry_of(self.options, name), around)
        return self._formats[name]

    def run(self, task: Task) -> None:
        """Tokenize a block and keep its tokens in the cache."""
        with task.path.open("rb") as stream:
            stream.seek(task.block.offset)
            raw = stream.read(task.block.size)
        self._cache.save(task.key, tokenize_block(raw, self.format(task.entry), self.encoder))


def entry_of(options: TokenizeOptions, name: str) -> DatasetFormat:
    """The dataset entry that a slot's name (``train-00``, ``test-01``, ``against-00``) stands for."""
    split, number = name.split("-")
    entries = {"train": options.datasets, "test": options.test_datasets, "against": options.dedupe.against}[split]
    return (entries or [])[int(number)]


def tokenize_block(raw: bytes, format_row: Format, encoder: Encoder) -> Tokens:
    """Rows that can be used, and why the others cannot."""
    made = [(line, _try(format_row, row)) for line, row in read_rows(raw)]
    encoded = iter(encoder.encode([example for _, row in made for example in _examples(row)]))
    rows, rejected = TokenRows(id_dtype(encoder.vocab_size)), []
    for line, row in made:
        if isinstance(row, Tokenized) and not all(0 <= token < encoder.vocab_size for token in row.input_ids):
            row = BadRow(f"token ids from {min(row.input_ids)} to {max(row.input_ids)}; the tokenizer has {encoder.vocab_size}")
        if isinstance(row, BadRow):
            rejected.append((line, str(row).encode("utf-8", "backslashreplace").decode("utf-8")))  # it may quote the row
            continue
        ids, mask = as_pair(row) if isinstance(row, Tokenized) else next(encoded)
        other = next(encoded) if isinstance(row, Preference) else None
        labels = np.asarray(row.labels, np.int8) if isinstance(row, Example | Tokenized) and row.labels else None
        if isinstance(row, Prompt):
            rows.add(ids, mask, 0, line, reference=row.reference)
        elif not mask.any() or not (other is None or other[1].any()):
            rejected.append((line, "no trained token"))
        elif labels is not None and len(labels) not in (1, trained := int(mask.sum())):
            rejected.append((line, f"{len(labels)} labels for {trained} trained tokens"))
        else:
            rows.add(ids, mask, 0, line, other, labels)
    return Tokens(rows.batch() if len(rows) else None, rejected, sum(isinstance(row, Example) and row.slow for _, row in made))


def _try(format_row: Format, row: Row | BadRow) -> Made | BadRow:
    if isinstance(row, BadRow):
        return row
    try:
        made = format_row(row)
        _require_utf8(_examples(made))
    except BadRow as reason:
        return reason
    return made


def _examples(made: Made | BadRow) -> Sequence[Example]:
    if isinstance(made, Preference):
        return made.chosen, made.rejected
    if isinstance(made, Prompt):
        return (made.example,)
    return (made,) if isinstance(made, Example) else ()


def _require_utf8(examples: Iterable[Example]) -> None:
    """JSON can escape half of a surrogate pair, which is no character."""
    try:
        for piece in (piece for example in examples for piece in example.pieces):
            if not piece.text.isascii():
                piece.text.encode("utf-8")
    except UnicodeEncodeError:
        raise BadRow("text with a lone surrogate, which no UTF-8 can hold") from None


_worker: Worker | None = None


def start(settings: dict[str, Any], parent: int) -> None:
    """Begin a worker process: one thread each, and gone when its parent is."""
    global _worker
    die_with_parent(parent)
    os.environ.update(RAYON_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
    _worker = Worker(**settings)


def run(task: Task) -> None:
    """Tokenize a block in a worker process."""
    assert _worker is not None
    _worker.run(task)

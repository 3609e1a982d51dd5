"""From examples to ids and masks: what a tokenizer puts around texts, and pieces put together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.errors import RegrowError
from pipeline.tokens import Pair
from stages.tokenize.engine import Name, open_engine
from stages.tokenize.example import Example, Tokenized


class Encoder:
    """The tokenizer of data/tokenizer.

    Attributes:
        eos: text of the end-of-sequence token.
        special_tokens: texts of the special tokens by name (``eos_token`` …), for chat templates.
        chat_template: its template text, or ``None``.
        vocab_size: ids are below this.
    """

    def __init__(self, folder: Path, engine: Name) -> None:
        self._engine = open_engine(folder / "tokenizer.json", engine)
        reference = self._engine.reference
        self._prefix, self.vocab_size = reference.prefix, reference.vocab_size
        self.special_tokens, self.chat_template = _read_config(folder)
        if "eos_token" not in self.special_tokens:
            raise RegrowError("The tokenizer has no end-of-sequence token.", "Set special_tokens: {eos_token: ...} to one of its tokens.")
        self.eos = self.special_tokens["eos_token"]
        self._eos_id = reference.token_id(self.eos)
        if self._eos_id is None:
            raise RegrowError(
                f"The tokenizer's end-of-sequence token {self.eos!r} is none of its tokens.",
                "Set special_tokens: {eos_token: ...} to one that it has.",
            )

    def encode(self, examples: Sequence[Example]) -> list[Pair]:
        """Ids int64 and mask uint8 of each example, in order."""
        pieces = [piece for example in examples for piece in example.pieces]
        made = self._engine.encode([piece.text for piece in pieces], [piece.trained for piece in pieces])
        bounds, at = made.offsets.tolist(), 0
        pairs = []
        for example in examples:
            last = at + len(example.pieces)
            start, end = bounds[at], bounds[last]
            pairs.append(self._around(example, made.ids[start:end], made.mask[start:end]))
            at = last
        return pairs

    def _around(self, example: Example, ids: np.ndarray, mask: np.ndarray) -> Pair:
        doubled = len(self._prefix) and ids[: len(self._prefix)].tolist() == self._prefix
        before: list[int] = self._prefix if example.bos and not doubled else []
        after = [self._eos_id] if example.eos and not (len(ids) and ids[-1] == self._eos_id) else []
        if not before and not after:
            return ids, mask
        first = example.pieces[0].trained
        trained = int(bool(first) and first[0][0] == 0)
        around = np.concatenate([[trained] * len(before), mask, [1] * len(after)]).astype(np.uint8)
        return np.concatenate([before, ids, after]).astype(np.int64), around


def as_pair(tokenized: Tokenized) -> Pair:
    """A row that came tokenized."""
    return np.asarray(tokenized.input_ids, np.int64), np.asarray(tokenized.loss_mask, np.uint8)


def _read_config(folder: Path) -> tuple[dict[str, str], str | None]:
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    texts = {name: value["content"] if isinstance(value, dict) else value for name, value in config.items() if name.endswith("_token")}
    template = folder / "chat_template.jinja"
    text = template.read_text(encoding="utf-8") if template.exists() else config.get("chat_template")
    return {name: value for name, value in texts.items() if isinstance(value, str)}, text

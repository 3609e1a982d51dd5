"""From examples to ids and masks with the Rust tokenizer, in batches."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, processors

from pipeline.errors import RegrowError
from stages.tokenize.example import Example, Piece, Tokenized

Encoded = tuple[np.ndarray, np.ndarray]
"""Token ids int64 ``[tokens]`` and loss mask uint8 ``[tokens]``."""


class Encoder:
    """The tokenizer of data/tokenizer, with character offsets that cover every character.

    Attributes:
        eos: text of the end-of-sequence token.
        special_tokens: texts of the special tokens by name (``eos_token`` …), for chat templates.
        chat_template: its template text, or ``None``.
    """

    def __init__(self, folder: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._prefix = self._added_prefix()
        # The usual post-processor trims spaces off the offsets, which would leave spaces of a trained turn unmasked.
        self._tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
        self.special_tokens, self.chat_template = _read_config(folder)
        if "eos_token" not in self.special_tokens:
            raise RegrowError("The tokenizer has no end-of-sequence token.", "Set special_tokens: {eos_token: ...} to one of its tokens.")
        self.eos = self.special_tokens["eos_token"]
        self._eos_id = self._tokenizer.token_to_id(self.eos)

    @property
    def vocab_size(self) -> int:
        """Ids are below this."""
        return int(self._tokenizer.get_vocab_size(with_added_tokens=True))

    def _added_prefix(self) -> list[int]:
        """What the tokenizer puts in front of a text by itself (a beginning-of-sequence token, or nothing)."""
        bare = self._tokenizer.encode("a", add_special_tokens=False).ids
        full = self._tokenizer.encode("a", add_special_tokens=True).ids
        return list(full[: full.index(bare[0])]) if bare and bare[0] in full else []

    def encode(self, examples: Sequence[Example]) -> list[Encoded]:
        """Ids and mask of each example, in order."""
        pieces = [piece for example in examples for piece in example.pieces]
        encodings = iter(self._tokenizer.encode_batch([piece.text for piece in pieces], add_special_tokens=False))
        return [self._assemble(example, [_encoded(piece, next(encodings)) for piece in example.pieces]) for example in examples]

    def _assemble(self, example: Example, parts: list[Encoded]) -> Encoded:
        if example.bos and self._prefix:
            trained = int(bool(example.pieces[0].trained))
            parts.insert(0, (np.asarray(self._prefix), np.full(len(self._prefix), trained, np.uint8)))
        if example.eos and not (len(parts[-1][0]) and parts[-1][0][-1] == self._eos_id):
            parts.append((np.asarray([self._eos_id]), np.ones(1, np.uint8)))
        return np.concatenate([ids for ids, _ in parts]), np.concatenate([mask for _, mask in parts])


def _encoded(piece: Piece, encoding: object) -> Encoded:
    ids = np.asarray(encoding.ids, np.int64)  # type: ignore[attr-defined]
    offsets = np.asarray(encoding.offsets, np.int64).reshape(-1, 2)  # type: ignore[attr-defined]
    return ids, token_mask(len(piece.text), offsets, piece.trained)


def token_mask(length: int, offsets: np.ndarray, trained: Sequence[tuple[int, int]]) -> np.ndarray:
    """1 for each token that covers at least one trained character.

    ``length`` of the text in characters, ``offsets`` int64 ``[tokens, 2]`` into it, ``trained`` spans ``[start, end)``.
    """
    edges = np.zeros(length + 1, np.int64)
    for start, end in trained:
        edges[start] += 1
        edges[end] -= 1
    covered = np.concatenate([[0], np.cumsum(np.cumsum(edges[:-1]) > 0)])
    return np.asarray(covered[offsets[:, 1]] > covered[offsets[:, 0]], np.uint8)


def as_encoded(tokenized: Tokenized) -> Encoded:
    """A row that came tokenized."""
    return np.asarray(tokenized.input_ids, np.int64), np.asarray(tokenized.loss_mask, np.uint8)


def _read_config(folder: Path) -> tuple[dict[str, str], str | None]:
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    texts = {name: value["content"] if isinstance(value, dict) else value for name, value in config.items() if name.endswith("_token")}
    template = folder / "chat_template.jinja"
    text = template.read_text(encoding="utf-8") if template.exists() else config.get("chat_template")
    return {name: value for name, value in texts.items() if isinstance(value, str)}, text

"""How many bytes of a text each token stands for, where that follows from ids alone: then masks need no offsets from an engine.

Two kinds of BPE vocabularies say it: byte-level ones (GPT-2, Llama 3, Qwen), and those that write a space as ``▁`` and fall back
to bytes (Llama 2, Gemma). What else a tokenizer does may only be what changes no text, or what :meth:`TokenBytes.sizes` undoes.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import pre_tokenizers

_ALPHABET = frozenset(pre_tokenizers.ByteLevel.alphabet())
_SPACE = "▁"
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_NFC, _PREPEND = {"type": "NFC"}, {"type": "Prepend", "prepend": _SPACE}
_REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}


@dataclass(frozen=True)
class TokenBytes:
    """Attributes:
    lengths: int64 ``[vocabulary]``, bytes that each id stands for.
    added: bool ``[vocabulary]``, tokens that are found in the text before anything else.
    prepends: a space is put in front of every stretch of text between added tokens.
    composes: texts become NFC; sizes are those of the text itself only where it is NFC already.
    """

    lengths: np.ndarray
    added: np.ndarray
    prepends: bool
    composes: bool

    def sizes(self, ids: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """Bytes of each token int64 ``[tokens]``, of texts that begin at ``offsets`` int64 ``[texts + 1]``.

        A text that holds something else than its tokens say (bytes without a token, spaces that an added token swallowed, a
        literal ``▁``) has more bytes than they add up to, and never fewer.
        """
        sizes: np.ndarray = self.lengths[ids]
        if self.prepends and len(ids):
            begins = np.zeros(len(ids), bool)
            begins[offsets[offsets < len(ids)]] = True
            begins[1:] |= self.added[ids[:-1]]
            sizes -= begins & ~self.added[ids]
        return sizes

    def is_plain(self, text: str) -> bool:
        """Whether the tokenizer takes the text as it is."""
        return not self.composes or text.isascii() or unicodedata.is_normalized("NFC", text)


def token_bytes(path: Path) -> TokenBytes | None:
    """Of a tokenizer.json; ``None`` where ids alone do not say which bytes they stand for."""
    settings = json.loads(path.read_text(encoding="utf-8"))
    model, steps = settings["model"], _steps(settings.get("normalizer"), "normalizers")
    if model.get("type") != "BPE" or any(model.get(name) for name in ("continuing_subword_prefix", "end_of_word_suffix", "dropout")):
        return None
    added = {token["id"]: token["content"] for token in settings["added_tokens"]}
    texts = {number: token for token, number in model["vocab"].items()} | added
    normalizers = [step for step in steps if step != _NFC]
    pre_tokenizer = _steps(settings.get("pre_tokenizer"), "pretokenizers")
    if not normalizers and _is_byte_level(pre_tokenizer, (token for number, token in texts.items() if number not in added)):
        length = _letters
    elif normalizers in ([_REPLACE], [_PREPEND, _REPLACE]) and _falls_back_to_bytes(pre_tokenizer, model):
        if _PREPEND in normalizers and any(_SPACE in text for text in added.values()):
            return None  # a text's first token could be an added one that holds the space that was put there
        length = _spaced
    else:
        return None
    lengths = {number: length(token) for number, token in texts.items()}
    size = max(lengths, default=0) + 1
    made = TokenBytes(np.zeros(size, np.int64), np.zeros(size, bool), _PREPEND in normalizers, _NFC in steps)
    made.lengths[list(lengths)] = list(lengths.values())
    made.added[list(added)] = True
    return made


def _steps(setting: Mapping[str, Any] | None, inner: str) -> list[Mapping[str, Any]]:
    """What a normalizer or pre-tokenizer does, one after the other."""
    if setting is None:
        return []
    return [step for part in setting[inner] for step in _steps(part, inner)] if setting["type"] == "Sequence" else [setting]


def _is_byte_level(steps: list[Mapping[str, Any]], tokens: Iterable[str]) -> bool:
    """Whether text becomes byte-level letters, with nothing added and nothing removed, and the vocabulary is made of them."""
    levels = [step for step in steps if step["type"] == "ByteLevel"]
    splits = all(step["type"] in ("ByteLevel", "Digits") or _only_splits(step) for step in steps)
    prefixed = any(step.get("add_prefix_space") for step in levels)
    return splits and bool(levels) and not prefixed and all(_ALPHABET.issuperset(token) for token in tokens)


def _falls_back_to_bytes(steps: list[Mapping[str, Any]], model: Mapping[str, Any]) -> bool:
    has_bytes = all(f"<0x{byte:02X}>" in model["vocab"] for byte in range(256))
    return model.get("byte_fallback") is True and has_bytes and all(_only_splits(step) for step in steps)


def _only_splits(step: Mapping[str, Any]) -> bool:
    return bool(step["type"] == "Split" and step["behavior"] != "Removed")


# An added token can be in the vocabulary too, and come of merging as well as of its text. The smaller size is taken then, so that
# what is wrong shows as bytes that are missing.


def _letters(token: str) -> int:
    """Bytes of a token of a byte-level vocabulary, or of an added token beside it."""
    return len(token) if _ALPHABET.issuperset(token) else len(token.encode("utf-8"))


def _spaced(token: str) -> int:
    """Bytes of a token of a vocabulary that falls back to bytes."""
    return 1 if _BYTE.fullmatch(token) else len(token.replace(_SPACE, " ").encode("utf-8"))

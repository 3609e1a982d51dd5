"""Small tokenizers of the kinds that models have, each a tokenizer.json."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, trainers

_LINES = ["the wind came from the north, the lamp burned", "日本語の日本語 ångström", "naïve été été 2024", "  spaces   and\n\nlines"] * 9
_ADDED = ["<|im_start|>", "<|im_end|>"]
_LLAMA3_SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def _level(**more: Any) -> Any:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, **more)


def _split() -> Any:
    from tokenizers import Regex

    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(_LLAMA3_SPLIT), "isolated"), _level(use_regex=False)])


def _byte_level(pre_tokenizer: Any, normalizer: Any = None) -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        made.normalizer = normalizer
    made.train_from_iterator(
        _LINES, trainers.BpeTrainer(vocab_size=420, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    )
    made.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in _ADDED])
    return made


def _spaced(normalizer: Any, *added: str) -> Tokenizer:
    """A vocabulary that writes spaces as ▁ and falls back to bytes."""
    made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    made.normalizer = normalizer
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    made.train_from_iterator(_LINES, trainers.BpeTrainer(vocab_size=420, special_tokens=special, show_progress=False))
    content = json.loads(made.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if not token["content"].startswith("<0x")]
    made = Tokenizer.from_str(json.dumps(content))
    made.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in _ADDED])
    made.add_tokens([AddedToken(text, normalized=False) for text in (*added, "\n\n")])
    return made


def _unigram() -> Tokenizer:
    made = Tokenizer(models.Unigram())
    made.normalizer, made.pre_tokenizer = normalizers.NFKC(), pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=90, unk_token="<unk>", special_tokens=["<unk>", *_ADDED], show_progress=False)
    made.train_from_iterator(_LINES, trainer)
    return made


def _word_piece() -> Tokenizer:
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    made.train_from_iterator(_LINES, trainers.WordPieceTrainer(vocab_size=90, special_tokens=["[UNK]", *_ADDED], show_progress=False))
    return made


def _replaced() -> Any:
    return normalizers.Replace(" ", "▁")


FAST: dict[str, Callable[[], Tokenizer]] = {
    "GPT-2": lambda: _byte_level(_level()),
    "Llama 3": lambda: _byte_level(_split()),
    "Qwen": lambda: _byte_level(_split(), normalizers.NFC()),
    "DeepSeek": lambda: _byte_level(_split(), normalizers.Sequence([])),
    "Llama 2": lambda: _spaced(normalizers.Sequence([normalizers.Prepend("▁"), _replaced()])),
    "Gemma": lambda: _spaced(_replaced(), "▁▁"),
}
"""Kinds whose ids say which bytes they stand for, by a model that has them."""

OTHERS: dict[str, Callable[[], Tokenizer]] = {
    "T5": _unigram,
    "BERT": _word_piece,
    "Mistral": lambda: _metaspace(),
    "Llama 2 with ▁▁ added": lambda: _spaced(normalizers.Sequence([normalizers.Prepend("▁"), _replaced()]), "▁▁"),
    "a space in front": lambda: _byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True)),
}
"""Kinds of which only `tokenizers` knows where a token stands."""


def _metaspace() -> Tokenizer:
    made = _spaced(_replaced())
    content = json.loads(made.to_str())
    content["normalizer"] = None
    content["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    return Tokenizer.from_str(json.dumps(content))


def save(folder: Path, made: Tokenizer, **changes: Any) -> Path:
    """tokenizer.json of a tokenizer. ``changes`` are made to its last added token, or with the name ``model`` to its model."""
    content = json.loads(made.to_str())
    content["model"] |= changes.pop("model", {})
    content["added_tokens"][-1] |= changes
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path

"""The tokenizer as GGUF metadata: what llama.cpp needs to cut text into the ids that the model was trained on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import GGUFWriter, TokenType

from pipeline.errors import RegrowError
from stages.quantize.architectures import REMOVE

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SPECIAL = ("bos", "eos", "unk", "pad")
_BYTES_WITH_REGEX, _BYTES = ("ByteLevel", True), ("ByteLevel", False)

PRE_TOKENIZERS: dict[tuple[Any, ...], str] = {
    (_BYTES_WITH_REGEX,): "gpt-2",
    (("Digits", True), _BYTES_WITH_REGEX): "smollm",
    (("Split", rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}|{_REST}"), _BYTES): "qwen2",
    (("Split", rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}{{1,3}}|{_REST}"), _BYTES): "llama-bpe",
}
"""llama.cpp's name (tokenizer.ggml.pre) of a chain of pre-tokenizers. The rules behind a name are compiled into llama.cpp."""


@dataclass(frozen=True)
class Vocabulary:
    """A byte-level BPE vocabulary, one token per row of the embedding."""

    pre: str
    tokens: list[str]
    types: list[TokenType]
    merges: list[str]
    special: dict[str, int]
    chat_template: str | None
    adds_bos: bool
    adds_eos: bool

    def add_to(self, writer: GGUFWriter) -> None:
        """Write all of it as tokenizer.* metadata."""
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        writer.add_token_merges(self.merges)
        adders = (writer.add_bos_token_id, writer.add_eos_token_id, writer.add_unk_token_id, writer.add_pad_token_id)
        for kind, add in zip(_SPECIAL, adders, strict=True):
            if kind in self.special:
                add(self.special[kind])
        writer.add_add_bos_token(self.adds_bos)
        writer.add_add_eos_token(self.adds_eos)
        writer.add_add_space_prefix(False)
        if self.chat_template is not None:
            writer.add_chat_template(self.chat_template)


def read_vocabulary(folder: Path, rows: int) -> Vocabulary:
    """The tokenizer files in ``folder``, for an embedding of ``rows`` rows.

    Raises:
        RegrowError: a tokenizer that llama.cpp would not reproduce, or more tokens than rows.
    """
    tokenizer, settings = _read(folder / "tokenizer.json"), _read(folder / "tokenizer_config.json")
    _check_kind(folder, tokenizer)
    pieces = {number: (token, TokenType.NORMAL) for token, number in tokenizer["model"]["vocab"].items()}
    for added in tokenizer["added_tokens"]:
        pieces[added["id"]] = (added["content"], TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED)
    if max(pieces) >= rows:
        raise RegrowError(f"{folder / 'tokenizer.json'} has token id {max(pieces)}, but the model embeds {rows} tokens.", REMOVE)
    listed = [pieces.get(number, (f"[PAD{number}]", TokenType.UNUSED)) for number in range(rows)]
    special = _special_ids(settings, {token: number for number, (token, _) in pieces.items()})
    first, last = _ends(folder)
    return Vocabulary(
        pre=pre_tokenizer_name(tokenizer, folder),
        tokens=[token for token, _ in listed],
        types=[kind for _, kind in listed],
        merges=[merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["model"]["merges"]],
        special=special,
        chat_template=_chat_template(folder, settings),
        adds_bos=first is not None and first == special.get("bos"),
        adds_eos=last is not None and last == special.get("eos"),
    )


def pre_tokenizer_name(tokenizer: dict[str, Any], folder: Path) -> str:
    """llama.cpp's name for the pre-tokenizer of a tokenizer.json.

    Raises:
        RegrowError: a chain that has no known name. A wrong name loads, and silently cuts text otherwise.
    """
    described = tokenizer["pre_tokenizer"] or {"type": "None"}
    steps = described["pretokenizers"] if described["type"] == "Sequence" else [described]
    name = PRE_TOKENIZERS.get(tuple(_describe(step) for step in steps))
    if name is None:
        chain = json.dumps(steps, ensure_ascii=False)
        raise RegrowError(f"{folder / 'tokenizer.json'} has a pre-tokenizer that there is no llama.cpp name for: {chain}.", REMOVE)
    return name


def _describe(step: dict[str, Any]) -> tuple[Any, ...]:
    """What distinguishes a pre-tokenizer; anything unusual about it makes the description match nothing."""
    if step["type"] == "Digits":
        return "Digits", step["individual_digits"]
    if step["type"] == "ByteLevel" and not step["add_prefix_space"]:
        return "ByteLevel", step.get("use_regex", True)
    if step["type"] == "Split" and step["behavior"] == "Isolated" and not step["invert"]:
        return "Split", step["pattern"].get("Regex")
    return (json.dumps(step, sort_keys=True),)


def _check_kind(folder: Path, tokenizer: dict[str, Any]) -> None:
    model, normalizer = tokenizer["model"], tokenizer.get("normalizer")
    kind = "BPE with byte fallback" if model.get("byte_fallback") else model["type"]
    if kind != "BPE":
        raise RegrowError(f"{folder / 'tokenizer.json'} is {kind}; GGUF is written for byte-level BPE.", REMOVE)
    if normalizer is not None and normalizer["type"] != "NFC":
        raise RegrowError(f"{folder / 'tokenizer.json'} has the normalizer {normalizer['type']}, which llama.cpp does not apply.", REMOVE)


def _special_ids(settings: dict[str, Any], numbers: dict[str, int]) -> dict[str, int]:
    tokens = {kind: settings.get(f"{kind}_token") for kind in _SPECIAL}
    texts = {kind: token["content"] if isinstance(token, dict) else token for kind, token in tokens.items()}
    return {kind: numbers[text] for kind, text in texts.items() if text in numbers}


def _ends(folder: Path) -> tuple[int | None, int | None]:
    """First and last id of an encoded letter: what the tokenizer puts around every text, if anything."""
    from tokenizers import Tokenizer

    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode("a").ids
    return (ids[0], ids[-1]) if ids else (None, None)


def _chat_template(folder: Path, settings: dict[str, Any]) -> str | None:
    path = folder / "chat_template.jinja"
    if path.exists():
        return path.read_text(encoding="utf-8")
    template = settings.get("chat_template")
    return template if isinstance(template, str) else None


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise RegrowError(f"{path} cannot be read: {error}.", REMOVE) from None
    return content

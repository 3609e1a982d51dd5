"""Token ids to text, with what is known of every character: is it trained, is it a special token.

A token can end inside a character. Tokens are therefore turned into bytes, and a character belongs to trained text if any
of its bytes does.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_JOINERS = "\u200c\u200d"
"""Invisible characters that belong to words and emoji."""


@dataclass(frozen=True)
class Segment:
    """Neighbouring characters of one kind."""

    text: str
    trained: bool
    special: bool


class TokenText:
    """Reads the tokens of one tokenizer.

    Args:
        path: a tokenizer.json.
    """

    def __init__(self, path: Path) -> None:
        self._tokenizer: Any = Tokenizer.from_file(str(path))
        added = self._tokenizer.get_added_tokens_decoder()
        self._added = {number: token.content for number, token in added.items()}
        self._special = {number: token.content for number, token in added.items() if token.special}
        self._decoders = _decoder_names(self._tokenizer.decoder)
        lookalikes = sorted(self._special.values(), key=len, reverse=True)
        self._lookalike = re.compile("|".join(map(re.escape, lookalikes)) or r"(?!)")

    def pieces(self, ids: np.ndarray, *, goes_on: bool = False) -> list[bytes]:
        """The bytes of each token of ``ids`` ``[tokens]``, at the start of a text or, with ``goes_on``, behind other tokens."""
        return [self._bytes(number, first=at == 0 and not goes_on) for at, number in enumerate(ids.tolist())]

    def segments(self, ids: np.ndarray, trained: np.ndarray, *, goes_on: bool = False) -> Iterator[Segment]:
        """Text of a row from its ids and its mask, both ``[tokens]``. Bytes that are no UTF-8 are written ``\\xff``.

        Plain text that reads like a special token gets a backslash in front: only the real one goes without.
        """
        pieces = self.pieces(ids, goes_on=goes_on)
        special = np.isin(ids, list(self._special))
        kinds = np.repeat(trained.astype(np.int8) + 2 * special, [len(piece) for piece in pieces])
        data = b"".join(pieces)
        for start, end, kind in _runs(data, kinds):
            text = data[start:end].decode("utf-8", "backslashreplace")
            is_special = bool(kind & 2)
            yield Segment(text if is_special else self._lookalike.sub(r"\\\g<0>", text), bool(kind & 1), is_special)

    @property
    def special(self) -> list[int]:
        """Ids of special tokens."""
        return list(self._special)

    def _bytes(self, number: int, *, first: bool) -> bytes:
        if number in self._added:
            return str(self._added[number]).encode()
        token = self._tokenizer.id_to_token(number)
        if token is None:
            return f"<no token {number}>".encode()
        if "ByteLevel" in self._decoders:
            table = _byte_of_letter()
            return bytes(table[letter] for letter in token) if all(letter in table for letter in token) else token.encode()
        if "ByteFallback" in self._decoders and (byte := _BYTE.fullmatch(token)):
            return bytes.fromhex(byte[1])
        return self._text(token, first=first).encode()

    def _text(self, token: str, *, first: bool) -> str:
        """What the tokenizer's own decoder makes of a token at the start of a text, or after a letter."""
        decoder = self._tokenizer.decoder
        if decoder is None:
            return token if first else f" {token}"
        text: str = decoder.decode([token]) if first else decoder.decode(["a", token])[1:]
        return text


def _decoder_names(decoder: Any) -> set[str]:
    if decoder is None:
        return set()
    state = json.loads(decoder.__getstate__())
    return {state["type"], *(part["type"] for part in state.get("decoders", []))}


@cache
def _byte_of_letter() -> dict[str, int]:
    """The letters by which byte-level tokenizers write bytes (GPT-2): printable Latin-1 for itself, the rest from U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + at): byte for at, byte in enumerate(others)}


def _runs(data: bytes, kinds: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """(start, end, kind) of neighbouring bytes of one kind. A character on a border goes to the trained side, whole."""
    borders = (np.flatnonzero(np.diff(kinds)) + 1).tolist()
    start, kind = 0, int(kinds[0]) if len(kinds) else 0
    for border in borders:
        following = int(kinds[border])
        end = outside_characters(data, border, forward=bool(kind & 1))
        if end > start:
            yield start, end, kind
            start = end
        kind = following
    if start < len(data):
        yield start, len(data), kind


def outside_characters(data: bytes, at: int, *, forward: bool) -> int:
    """``at``, or if it lies inside a character, that character's end or start."""
    for start in range(at - 1, max(at - 4, -1), -1):
        end = start + _character_bytes(data[start])
        if end > at and _is_character(data[start:end]):
            return end if forward else start
    return at


def _character_bytes(first: int) -> int:
    """Bytes of a UTF-8 character by its first one; 1 for what cannot be the first of several."""
    return 2 if 0xC2 <= first < 0xE0 else 3 if 0xE0 <= first < 0xF0 else 4 if 0xF0 <= first < 0xF5 else 1


def _is_character(data: bytes) -> bool:
    try:
        return len(data.decode("utf-8")) == 1
    except UnicodeDecodeError:
        return False


def visible(text: str) -> str:
    """Text that a terminal shows as it is: line ends marked and still broken, control characters as pictures."""
    return "".join(letter if letter.isprintable() else _picture(letter) for letter in text)


def _picture(letter: str) -> str:
    code = ord(letter)
    if letter == "\n":
        return "↵\n"
    if code < 0x20 or code == 0x7F:
        return chr(0x2400 + code) if code < 0x20 else "␡"
    if letter in _JOINERS or unicodedata.category(letter) in ("Zs", "Co"):
        return letter
    return letter.encode("unicode_escape").decode("ascii")

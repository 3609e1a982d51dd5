"""Text to token ids and where each token stands, in whole batches, by the fastest engine that is proved equal.

`tokenizers` is the reference. `fastokens` reads the same tokenizer.json and is several times faster; it is used where its ids
are the same on :func:`probes` and where each token's length in bytes follows from its id alone (byte-level vocabularies
without a normalizer), so that masks need no offsets from the engine. Texts in which that does not hold (bytes without a token,
added tokens that swallow spaces) go to the reference, one by one.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tokenizers import Tokenizer, pre_tokenizers, processors

Name = Literal["fastokens", "tokenizers"]
Span = tuple[int, int]

_ALPHABET = frozenset(pre_tokenizers.ByteLevel.alphabet())
_FOREIGN = ("日本語", "こんにちは", "한국어", "привет", "שלום", "مرحبا")
_CHECKED_SHARE = 64
"""One text in so many is tokenized by both engines while it is used."""


class EnginesDiffer(Exception):
    """The fast engine gave other ids than the reference. Everything it made is to be made again by the reference."""


@dataclass(frozen=True)
class Encoded:
    """Texts one after the other.

    Attributes:
        ids: int64 ``[tokens]``.
        mask: uint8 ``[tokens]``, 1 where a token covers a trained character.
        offsets: int64 ``[texts + 1]``, where each text's tokens begin.
    """

    ids: np.ndarray
    mask: np.ndarray
    offsets: np.ndarray


def reference_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a tokenizer.json, with character offsets that cover every character."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    # The usual post-processor trims spaces off the offsets, which would leave spaces of a trained turn unmasked.
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


class ReferenceEngine:
    """`tokenizers`, with masks from its character offsets."""

    name: Name = "tokenizers"

    def __init__(self, path: Path) -> None:
        self._tokenizer = reference_tokenizer(path)

    def encode(self, texts: Sequence[str], trained: Sequence[Sequence[Span]]) -> Encoded:
        """Ids of each text and the mask that its trained character spans ``[start, end)`` make."""
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        parts = [_masked(encoding, len(text), spans) for text, spans, encoding in zip(texts, trained, encodings, strict=True)]
        return _joined(parts)


class FastEngine:
    """`fastokens`, with masks from the byte lengths of tokens.

    Args:
        path: of tokenizer.json.
        lengths: int64 ``[vocabulary]``, bytes that each id stands for.
    """

    name: Name = "fastokens"

    def __init__(self, path: Path, lengths: np.ndarray) -> None:
        from fastokens import Tokenizer as FastTokenizer  # type: ignore[import-untyped]

        self._tokenizer, self._lengths = FastTokenizer.from_file(str(path)), lengths
        self._reference = reference_tokenizer(path)

    def encode(self, texts: Sequence[str], trained: Sequence[Sequence[Span]]) -> Encoded:
        """As :meth:`ReferenceEngine.encode`.

        Raises:
            EnginesDiffer: a sample of the texts has other ids than the reference gives.
        """
        try:
            ids, offsets = self.flat(texts)
        except ValueError:  # a byte without a token; the message does not say in which text
            return self._by_reference(texts, trained)
        self._check_sample(texts, ids, offsets)
        ends = np.cumsum(self._lengths[ids])
        covered = np.concatenate([[0], ends])[offsets]
        sizes = np.fromiter((len(text) if text.isascii() else len(text.encode("utf-8")) for text in texts), np.int64, len(texts))
        uncovered = np.flatnonzero(np.diff(covered) != sizes)
        skip = frozenset(uncovered.tolist())
        mask = _mask_of_bytes(ends, [_in_bytes(text, spans) for text, spans in zip(texts, trained, strict=True)], covered, skip)
        made = Encoded(ids, mask, offsets)
        return self._with_reference(made, texts, trained, uncovered.tolist()) if skip else made

    def flat(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Ids int64 ``[tokens]`` and offsets int64 ``[texts + 1]``."""
        ids, offsets = self._tokenizer.encode_batch_flat(list(texts))
        return np.frombuffer(ids, np.uint32).astype(np.int64), np.frombuffer(offsets, np.uint64).astype(np.int64)

    def _check_sample(self, texts: Sequence[str], ids: np.ndarray, offsets: np.ndarray) -> None:
        sample = list(range(0, len(texts), _CHECKED_SHARE))
        for index, encoding in zip(sample, self._reference.encode_batch([texts[i] for i in sample], add_special_tokens=False), strict=True):
            if not np.array_equal(encoding.ids, ids[offsets[index] : offsets[index + 1]]):
                raise EnginesDiffer(texts[index][:80])

    def _by_reference(self, texts: Sequence[str], trained: Sequence[Sequence[Span]]) -> Encoded:
        encodings = self._reference.encode_batch(list(texts), add_special_tokens=False)
        return _joined([_masked(encoding, len(text), spans) for text, spans, encoding in zip(texts, trained, encodings, strict=True)])

    def _with_reference(self, made: Encoded, texts: Sequence[str], trained: Sequence[Sequence[Span]], wrong: list[int]) -> Encoded:
        """``made`` with the texts ``wrong`` tokenized by the reference."""
        cuts = [(made.ids[a:b], made.mask[a:b]) for a, b in zip(made.offsets, made.offsets[1:], strict=False)]
        again = self._by_reference([texts[index] for index in wrong], [trained[index] for index in wrong])
        for place, index in enumerate(wrong):
            a, b = again.offsets[place], again.offsets[place + 1]
            cuts[index] = again.ids[a:b], again.mask[a:b]
        return _joined(cuts)


Engine = ReferenceEngine | FastEngine


def open_engine(path: Path, name: Name) -> Engine:
    """An engine that :func:`choose_engine` has chosen for this tokenizer.json."""
    if name == "tokenizers":
        return ReferenceEngine(path)
    lengths = byte_lengths(path)
    assert lengths is not None
    return FastEngine(path, lengths)


def choose_engine(path: Path) -> tuple[Name, str]:
    """The engine for a tokenizer.json, and why."""
    lengths = byte_lengths(path)
    if lengths is None:
        return "tokenizers", "its vocabulary is not plain byte-level, so masks need character offsets"
    try:
        engine = FastEngine(path, lengths)
    except (ValueError, OSError, NotImplementedError) as error:
        return "tokenizers", f"fastokens cannot read it: {str(error).splitlines()[0]}"
    texts = probes(path)
    reference = reference_tokenizer(path)
    for text, encoding in zip(texts, reference.encode_batch(texts, add_special_tokens=False), strict=True):
        try:
            ids, _ = engine.flat([text])
        except ValueError:
            continue  # refused, not wrong: at work such a text goes to the reference
        if not np.array_equal(ids, encoding.ids):
            return "tokenizers", f"fastokens gives other ids for {text[:40]!r}"
    return "fastokens", f"equal to tokenizers on {len(texts)} probes"


def byte_lengths(path: Path) -> np.ndarray | None:
    """Bytes of each id, int64 ``[vocabulary]``; ``None`` where ids alone do not say which bytes they stand for."""
    settings = json.loads(path.read_text(encoding="utf-8"))
    if settings.get("normalizer") is not None or settings["model"].get("type") != "BPE" or not _is_byte_level(settings["pre_tokenizer"]):
        return None
    model = settings["model"]
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix") or model.get("dropout"):
        return None
    added = {token["id"]: token["content"] for token in settings["added_tokens"]}
    plain = {number: token for token, number in model["vocab"].items() if number not in added}
    if not all(_ALPHABET.issuperset(token) for token in plain.values()):
        return None
    lengths = np.zeros(max([*added, *plain], default=0) + 1, np.int64)
    for number, token in plain.items():
        lengths[number] = len(token)
    for number, content in added.items():
        lengths[number] = len(content.encode("utf-8"))
    return lengths


def _is_byte_level(split: dict[str, Any] | None) -> bool:
    """Whether a pre-tokenizer ends in byte-level text, adding and removing nothing."""
    if split is None:
        return False
    steps = split["pretokenizers"] if split["type"] == "Sequence" else [split]
    keeps = all(step["type"] in ("ByteLevel", "Digits") or (step["type"] == "Split" and step["behavior"] != "Removed") for step in steps)
    levels = [step for step in steps if step["type"] == "ByteLevel"]
    return keeps and bool(levels) and not any(step.get("add_prefix_space") for step in levels)


def probes(path: Path) -> list[str]:
    """Texts on which engines are compared: every kind of character, spaces, numbers and the added tokens, in seeded disorder."""
    settings = json.loads(path.read_text(encoding="utf-8"))
    added = [token["content"] for token in settings["added_tokens"]][:64]
    draw = random.Random(0)
    words = [*("the", "Hello", "don't", "I'LL", "naïve", "Straße", "12345", "3.14", "été"), *_FOREIGN]
    marks = [*" .,…—'", "  ", "\n", "\n\n", "\r\n", "\t", "   \n ", "!?", "'s", "()", "{}", "</a>", "\u00a0", "\u200b", "e\u0301"]
    wide = [*"🙂👍🏽𝔘ﷺ½٣Ⅷǅ", "👩‍🔧", "\u0000", "\u007f", "\ufeff", "क्षि", "ไทย"]
    pools = [words, marks, wide, added or words, ["a", "B", "7", "_", "\\", "#", "=>", "::"]]
    made = ["".join(draw.choice(draw.choice(pools)) for _ in range(draw.randint(1, 24))) for _ in range(1500)]
    anything = ["".join(chr(draw.randint(0x20, 0x2FFF)) for _ in range(40)) for _ in range(200)]
    return [*made, *anything, draw.choice(words) * 300, " " * 200, "\n" * 90]


def _masked(encoding: Any, length: int, trained: Sequence[Span]) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.asarray(encoding.offsets, np.int64).reshape(-1, 2)
    return np.asarray(encoding.ids, np.int64), token_mask(length, offsets, trained)


def token_mask(length: int, offsets: np.ndarray, trained: Sequence[Span]) -> np.ndarray:
    """1 for each token that covers at least one trained character.

    ``length`` of the text in characters, ``offsets`` int64 ``[tokens, 2]`` into it, ``trained`` spans ``[start, end)``.
    """
    edges = np.zeros(length + 1, np.int64)
    for start, end in trained:
        edges[start] += 1
        edges[end] -= 1
    covered = np.concatenate([[0], np.cumsum(np.cumsum(edges[:-1]) > 0)])
    return np.asarray(covered[offsets[:, 1]] > covered[offsets[:, 0]], np.uint8)


def _in_bytes(text: str, spans: Sequence[Span]) -> Sequence[Span]:
    """Character spans, in order, as UTF-8 byte spans."""
    if not spans or text.isascii():
        return spans
    made, at, byte = [], 0, 0
    for start, end in sorted(spans):
        first = byte + len(text[at:start].encode("utf-8")) if start >= at else len(text[:start].encode("utf-8"))
        at, byte = end, first + len(text[start:end].encode("utf-8"))
        made.append((first, byte))
    return made


def _mask_of_bytes(ends: np.ndarray, spans: Sequence[Sequence[Span]], starts: np.ndarray, skip: frozenset[int]) -> np.ndarray:
    """1 for each token that overlaps a span.

    ``ends`` int64 ``[tokens]``: bytes up to each token's end, over all texts. ``spans`` of each text in its own bytes, ``starts`` where
    each text begins among all bytes; texts in ``skip`` have no spans.
    """
    based = [(own, base) for i, (own, base) in enumerate(zip(spans, starts.tolist(), strict=False)) if i not in skip]
    flat = [(start + base, end + base) for own, base in based for start, end in own if start < end]
    edges = np.zeros(len(ends) + 1, np.int64)
    if flat:
        bounds = np.asarray(flat, np.int64)
        np.add.at(edges, np.searchsorted(ends, bounds[:, 0], "right"), 1)
        np.add.at(edges, np.searchsorted(ends, bounds[:, 1], "left") + 1, -1)
    return np.asarray(np.cumsum(edges[:-1]) > 0, np.uint8)


def _joined(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> Encoded:
    ids, masks = [ids for ids, _ in parts], [mask for _, mask in parts]
    offsets = np.zeros(len(parts) + 1, np.int64)
    np.cumsum([len(part) for part in ids], out=offsets[1:])
    return Encoded(np.concatenate(ids or [np.zeros(0, np.int64)]), np.concatenate(masks or [np.zeros(0, np.uint8)]), offsets)

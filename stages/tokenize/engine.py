"""Text to token ids and where each token stands, in whole batches, by the fastest engine that is proved equal.

`tokenizers` is the reference. `fastokens` reads the same tokenizer.json and is many times faster; it is used where ids say how
many bytes a token stands for (:mod:`stages.tokenize.token_bytes`) and where ids and masks are the same on
:func:`stages.tokenize.probes.probes`. Texts that hold something else than their tokens say go to the reference, one by one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tokenizers import Tokenizer, processors

from stages.tokenize.probes import probe_spans, probes
from stages.tokenize.span_masks import Span, mask_by_offsets, mask_by_sizes, spans_in_bytes
from stages.tokenize.token_bytes import TokenBytes, token_bytes

Name = Literal["fastokens", "tokenizers"]

_CHECKED_SHARE = 64
"""One text in so many is tokenized by both engines while it is used."""
_CHECKED_LENGTH = 2**16
"""Characters of a text that is; the reference needs about 600 bytes per token."""


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

    def texts(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Ids and mask of each text."""
        for start, end in zip(self.offsets[:-1].tolist(), self.offsets[1:].tolist(), strict=True):
            yield self.ids[start:end], self.mask[start:end]


class ReferenceEngine:
    """`tokenizers`, with masks from its character offsets.

    Attributes:
        prefix: ids that the tokenizer puts in front of a text by itself (a beginning-of-sequence token, or nothing).
        vocab_size: ids are below this.
    """

    name: Name = "tokenizers"

    def __init__(self, path: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(path))
        self.prefix = _added_prefix(self._tokenizer)
        self.vocab_size = 1 + max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        # The usual post-processor trims spaces off the offsets, which would leave spaces of a trained turn unmasked.
        self._tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)

    def encode(self, texts: Sequence[str], trained: Sequence[Sequence[Span]]) -> Encoded:
        """Ids of each text and the mask that its trained character spans ``[start, end)`` make."""
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return _joined([_masked(encoding, len(text), spans) for text, spans, encoding in zip(texts, trained, encodings, strict=True)])

    @property
    def reference(self) -> ReferenceEngine:
        """This engine."""
        return self

    def token_id(self, text: str) -> int | None:
        """The id of a token that has this text, if there is one."""
        number: int | None = self._tokenizer.token_to_id(text)
        return number

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts), add_special_tokens=False)]


class FastEngine:
    """`fastokens`, with masks from the byte lengths of tokens.

    Args:
        path: of tokenizer.json.
        sizes: the bytes of its tokens.
    """

    name: Name = "fastokens"

    def __init__(self, path: Path, sizes: TokenBytes) -> None:
        # Read when the first text comes. Several threads for one batch cost a third more CPU time than one, and processes share the work.
        os.environ.setdefault("FASTOKENS_BPE_THREADS", "1")
        from fastokens import Tokenizer as FastTokenizer  # type: ignore[import-untyped]

        self._tokenizer, self._sizes = FastTokenizer.from_file(str(path)), sizes
        self.reference = ReferenceEngine(path)

    def encode(self, texts: Sequence[str], trained: Sequence[Sequence[Span]]) -> Encoded:
        """As :meth:`ReferenceEngine.encode`.

        Raises:
            EnginesDiffer: a sample of the texts has other ids than the reference gives.
        """
        try:
            ids, offsets = self.flat(texts)
        except ValueError:  # a byte without a token; the message does not say in which text
            return self._in_halves(texts, trained)
        sizes = self._sizes.sizes(ids, offsets)
        begins = np.concatenate([[0], np.cumsum(sizes)])[offsets]
        lengths = np.fromiter((len(text) if text.isascii() else len(text.encode("utf-8")) for text in texts), np.int64, len(texts))
        plain = np.fromiter(map(self._sizes.is_plain, texts), bool, len(texts)) & (np.diff(begins) == lengths)
        self._check_sample(texts, ids, offsets, [at for at in np.flatnonzero(plain).tolist() if len(texts[at]) <= _CHECKED_LENGTH])
        spans = [
            (start + base, end + base)
            for text, own, base, is_plain in zip(texts, trained, begins.tolist(), plain.tolist(), strict=False)
            if is_plain
            for start, end in spans_in_bytes(text, own)
            if start < end
        ]
        made = Encoded(ids, mask_by_sizes(sizes, np.asarray(spans, np.int64).reshape(-1, 2)), offsets)
        return made if plain.all() else self._with_reference(made, texts, trained, np.flatnonzero(~plain).tolist())

    def flat(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Ids int64 ``[tokens]`` and offsets int64 ``[texts + 1]``."""
        ids, offsets = self._tokenizer.encode_batch_flat(list(texts))
        return np.frombuffer(ids, np.uint32).astype(np.int64), np.frombuffer(offsets, np.uint64).astype(np.int64)

    def _in_halves(self, texts: Sequence[str], trained: Sequence[Sequence[Span]]) -> Encoded:
        """Texts of which one is refused: that one by the reference, the others by this engine."""
        if len(texts) == 1:
            return self.reference.encode(texts, trained)
        middle = len(texts) // 2
        halves = self.encode(texts[:middle], trained[:middle]), self.encode(texts[middle:], trained[middle:])
        return _joined([part for half in halves for part in half.texts()])

    def _check_sample(self, texts: Sequence[str], ids: np.ndarray, offsets: np.ndarray, candidates: list[int]) -> None:
        sample = candidates[::_CHECKED_SHARE]
        for index, expected in zip(sample, self.reference.ids([texts[index] for index in sample]), strict=True):
            if not np.array_equal(expected, ids[offsets[index] : offsets[index + 1]]):
                raise EnginesDiffer(texts[index][:80])

    def _with_reference(self, made: Encoded, texts: Sequence[str], trained: Sequence[Sequence[Span]], others: list[int]) -> Encoded:
        """``made`` with the texts ``others`` tokenized by the reference."""
        parts = list(made.texts())
        again = self.reference.encode([texts[index] for index in others], [trained[index] for index in others])
        for index, part in zip(others, again.texts(), strict=True):
            parts[index] = part
        return _joined(parts)


def _added_prefix(tokenizer: Tokenizer) -> list[int]:
    bare = tokenizer.encode("a", add_special_tokens=False).ids
    full = tokenizer.encode("a", add_special_tokens=True).ids
    return list(full[: full.index(bare[0])]) if bare and bare[0] in full else []


Engine = ReferenceEngine | FastEngine


def open_engine(path: Path, name: Name) -> Engine:
    """An engine that :func:`choose_engine` has chosen for this tokenizer.json."""
    if name == "tokenizers":
        return ReferenceEngine(path)
    sizes = token_bytes(path)
    assert sizes is not None
    return FastEngine(path, sizes)


def choose_engine(path: Path) -> tuple[Name, str]:
    """The engine for a tokenizer.json, and why."""
    sizes = token_bytes(path)
    if sizes is None:
        return "tokenizers", "its ids alone do not say which bytes they stand for, so masks need character offsets"
    try:
        engine = FastEngine(path, sizes)
    except (ValueError, OSError, NotImplementedError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        return "tokenizers", f"fastokens cannot read it: {reason}"
    texts = probes(path)
    spans = probe_spans(texts)
    try:
        pairs = zip(texts, engine.encode(texts, spans).texts(), engine.reference.encode(texts, spans).texts(), strict=True)
        for text, (ids, mask), (expected, expected_mask) in pairs:
            if not np.array_equal(ids, expected) or not np.array_equal(mask, expected_mask):
                return "tokenizers", f"fastokens gives other {'masks' if np.array_equal(ids, expected) else 'ids'} for {text[:40]!r}"
    except EnginesDiffer as difference:
        return "tokenizers", f"fastokens gives other ids for {str(difference)[:40]!r}"
    return "fastokens", f"equal to tokenizers on {len(texts)} probes"


def _masked(encoding: Any, length: int, trained: Sequence[Span]) -> tuple[np.ndarray, np.ndarray]:
    ids = np.asarray(encoding.ids, np.int64)
    if not trained or (length > 0 and tuple(trained) == ((0, length),)):
        return ids, np.full(len(ids), bool(trained), np.uint8)  # offsets are tuples, and dear
    return ids, mask_by_offsets(length, np.asarray(encoding.offsets, np.int64).reshape(-1, 2), trained)


def _joined(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> Encoded:
    ids, masks = [ids for ids, _ in parts], [mask for _, mask in parts]
    offsets = np.zeros(len(parts) + 1, np.int64)
    np.cumsum([len(part) for part in ids], out=offsets[1:])
    return Encoded(np.concatenate(ids or [np.zeros(0, np.int64)]), np.concatenate(masks or [np.zeros(0, np.uint8)]), offsets)

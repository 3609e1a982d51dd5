"""Multiple choice: which of the given answers a model finds likeliest, told by their first token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.errors import RegrowError
from stages.eval.rows import HeldOutRow


@dataclass(frozen=True)
class Choices:
    """The possible answers.

    Attributes:
        texts: as in ``eval.choices``.
        ids: int64 ``[choices]``, the first token of each; all different.
        right: int64 ``[rows]``, index of each held-out row's choice.
    """

    texts: list[str]
    ids: np.ndarray
    right: np.ndarray

    @property
    def majority_share(self) -> float:
        """Accuracy of always giving the most frequent answer: what a model must beat to have learnt anything."""
        return float(np.bincount(self.right).max() / len(self.right))


def resolve_choices(texts: list[str], rows: Sequence[HeldOutRow], tokenizer: Any, sources: Sequence[Mapping[str, Any]]) -> Choices:
    """Tokenize the choices and find each row's.

    Raises:
        RegrowError: a choice without tokens, two that begin with the same token, or a row that begins with none of them.
    """
    ids = [_first_token(text, tokenizer) for text in texts]
    for i, text in enumerate(texts):
        if ids[i] in ids[:i]:
            raise RegrowError(
                f"eval.choices: {texts[ids.index(ids[i])]!r} and {text!r} begin with the same token ({tokenizer.decode([ids[i]])!r}).",
                "Accuracy compares first tokens: use choices that differ there, or leave eval.choices out and read exact match.",
            )
    right = np.array([_find(row, ids, texts, tokenizer, sources) for row in rows], np.int64)
    return Choices(list(texts), np.array(ids, np.int64), right)


def _first_token(text: str, tokenizer: Any) -> int:
    ids = tokenizer.encode(text, add_special_tokens=False)
    if not ids:
        raise RegrowError(f"eval.choices: {text!r} has no tokens.", "Give each choice as the answers in the data begin.")
    return int(ids[0])


def _find(row: HeldOutRow, ids: list[int], texts: list[str], tokenizer: Any, sources: Sequence[Mapping[str, Any]]) -> int:
    token = int(row.ids[row.first])
    if token not in ids:
        raise RegrowError(
            f"{sources[row.source]['file']}, row {row.row}: the answer begins with the token {tokenizer.decode([token])!r}, "
            f"with which none of eval.choices {texts} begins.",
            "List every answer that occurs, spelt as in the data (a leading space counts), or leave eval.choices out.",
        )
    return ids.index(token)

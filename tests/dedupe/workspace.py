"""Hand-made tokens of several sources, and what a removed row must be, computed with Python's own sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.artifact import Artifact
from pipeline.kept import KeptRows
from pipeline.progress import Progress
from pipeline.stage import Metrics
from pipeline.tokens import TokenTable, TokenWriter, digest_row, id_dtype
from stages.dedupe import STAGE
from tests.tiny import publish_artifact, run_stage

VOCABULARY = 5000
Rows = Sequence[Sequence[int]]


class Heard(Progress):
    """What a stage says."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)


def publish_sources(
    data: Path, sources: Sequence[tuple[str, Rows]], order: Sequence[int] | None = None, rejected: Sequence[Rows] | None = None
) -> Artifact:
    """``data/tokens`` and ``data/tokenizer``. ``sources``: split and rows of each; ``order`` in which the table holds the rows."""
    keys = [(source, row) for source, (_, rows) in enumerate(sources) for row in range(len(rows))]

    def fill(folder: Path) -> None:
        with TokenWriter(folder, id_dtype(VOCABULARY)) as writer:
            for source, row in keys if order is None else [keys[place] for place in order]:
                ids = np.asarray(sources[source][1][row], np.int64)
                other = None if rejected is None else np.asarray(rejected[source][row], np.int64)
                pair = None if other is None else (other, np.ones(len(other), np.uint8))
                writer.add(ids, np.ones(len(ids), np.uint8), source, row, pair)

    counts: dict[str, int] = {}
    described = []
    for split, rows in sources:
        number = counts[split] = counts.get(split, -1) + 1
        described.append(
            {"name": f"{split}-{number:02d}", "split": split, "path": split, "file": f"{split}{number}.jsonl", "rows": len(rows)}
        )
    publish_artifact(data, "tokenizer", save_words)
    return publish_artifact(data, "tokens", fill, sources=described)


def save_words(folder: Path) -> None:
    """A tokenizer whose token n is the word ``wn``."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    Tokenizer(WordLevel({f"w{token}": token for token in range(VOCABULARY)}, "w0")).save(str(folder / "tokenizer.json"))


@dataclass(frozen=True)
class Deduped:
    """What the stage wrote, by (source, row)."""

    index: KeptRows
    tokens: TokenTable
    folder: Path
    metrics: Metrics
    said: list[str]

    @property
    def kept(self) -> set[tuple[int, int]]:
        return {self.key(row) for row in np.flatnonzero(self.index.keep).tolist()}

    @property
    def removed(self) -> dict[tuple[int, int], tuple[str, tuple[int, int], float]]:
        """Reason, the row it duplicates, and their similarity, of every row that duplicates one."""
        return {
            self.key(row): (str(self.index.reason[row]), self.key(int(self.index.duplicate_of[row])), float(self.index.similarity[row]))
            for row in np.flatnonzero(self.index.duplicate_of >= 0).tolist()
        }

    def key(self, row: int) -> tuple[int, int]:
        return int(self.tokens.source[row]), int(self.tokens.row[row])


def dedupe(
    workspace: Path,
    sources: Sequence[tuple[str, Rows]],
    options: Mapping[str, Any],
    order: Sequence[int] | None = None,
    rejected: Sequence[Rows] | None = None,
) -> Deduped:
    """Run the stage."""
    publish_sources(workspace / "data", sources, order, rejected)
    heard = Heard()
    _, metrics = run_stage(STAGE, workspace, options, progress=heard)
    folder = workspace / "data" / "dedupe"
    return Deduped(KeptRows.load(folder / "index.arrow"), TokenTable(workspace / "data" / "tokens"), folder, metrics, heard.lines)


def near(threshold: float = 0.8, ngram: int = 3, **more: Any) -> dict[str, Any]:
    """Options that look for near duplicates and count every n-gram."""
    return {"dedupe": {"near": {"threshold": threshold, "ngram": ngram, "template_share": 1} | more}}


def grams(ids: Sequence[int], length: int) -> set[tuple[int, ...]]:
    """n-grams of a row, or all of it where it is shorter."""
    return {tuple(ids[start : start + length]) for start in range(max(1, len(ids) - length + 1))}


def jaccard(one: Sequence[int], other: Sequence[int], length: int) -> float:
    """Common n-grams over all."""
    left, right = grams(one, length), grams(other, length)
    return len(left & right) / len(left | right)


def digests(rows: Rows) -> np.ndarray:
    """uint64 ``[rows, 2]``, as a token table has them."""
    joined = b"".join(digest_row(np.asarray(row), np.ones(len(row))) for row in rows)
    return np.frombuffer(joined, "<u8").reshape(-1, 2)


def edited(row: Sequence[int], places: int, random: np.random.Generator) -> list[int]:
    """``row`` with so many tokens replaced."""
    copy = np.asarray(row).copy()
    at = random.choice(len(copy), places, replace=False)
    copy[at] = random.integers(VOCABULARY, size=places)
    return copy.tolist()

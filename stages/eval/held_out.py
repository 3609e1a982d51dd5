"""All that the models are judged on, opened once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.bins import Bins
from pipeline.options.views import EvalOptions
from pipeline.stage import Job
from pipeline.tokens import TokenTable
from stages.eval.answers import Turn, find_ending, first_turns, turns_of
from stages.eval.choices import Choices, resolve_choices
from stages.eval.generate import Ending
from stages.eval.rows import HeldOutRow, load_rows


@dataclass(frozen=True)
class HeldOut:
    """The held-out rows and what is needed to read them.

    Attributes:
        rows: in plan order.
        unjudged: rows left out because no token of theirs can be judged.
        also_trained: held-out rows whose tokens and mask equal a training row's: nothing was learnt where they are right.
        choices: ``None`` when ``eval.choices`` is unset, or nothing is held out.
        sources: of the tokens manifest.
    """

    rows: Sequence[HeldOutRow]
    unjudged: int
    also_trained: int
    choices: Choices | None
    sources: Sequence[Mapping[str, Any]]
    tokenizer: Any

    @property
    def measure(self) -> str:
        """What "right" means for a row: ``accuracy`` among choices, or ``exact_match``."""
        return "exact_match" if self.choices is None else "accuracy"

    @cached_property
    def ending(self) -> Ending:
        """What ends an answer."""
        return find_ending(self.rows, self.tokenizer)

    @cached_property
    def turns(self) -> list[Turn]:
        """Every trained turn of the rows."""
        return turns_of(self.rows)

    @cached_property
    def samples(self) -> list[Turn]:
        """The first turn of each row."""
        return first_turns(self.rows)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the rows' ids and masks, in order."""
        hasher = hashlib.sha256()
        for row in self.rows:
            for part in (np.int64(len(row.ids)), row.ids, row.mask):
                hasher.update(part.tobytes())
        return hasher.hexdigest()

    def facts(self) -> dict[str, Any]:
        """Counts for metrics.json; what is zero or does not apply is left out, but for rows and tokens."""
        facts: dict[str, Any] = {"rows": len(self.rows), "tokens": sum(int(row.mask.sum()) for row in self.rows)}
        facts |= {"rows_without_trained_tokens": self.unjudged} if self.unjudged else {}
        facts |= {"rows_also_trained": self.also_trained} if self.also_trained else {}
        return facts | ({"majority_share": round(self.choices.majority_share, 6)} if self.choices else {})

    def origin(self, row: HeldOutRow) -> dict[str, Any]:
        """Where a row came from."""
        source = self.sources[row.source]
        return {"source": source["name"], "file": source["file"], "row": row.row}

    @cached_property
    def source_names(self) -> list[str]:
        """The slot of each source, with the file where a slot has several."""
        slots = [source["name"] for source in self.sources]
        return [name if slots.count(name) == 1 else f"{name}/{source['file']}" for name, source in zip(slots, self.sources, strict=True)]

    def by_source(self) -> dict[str, np.ndarray]:
        """Indices of the rows of each source, by its name. Sources in their order."""
        source_of = np.array([row.source for row in self.rows], np.int64)
        return {self.source_names[number]: np.flatnonzero(source_of == number) for number in np.unique(source_of).tolist()}

    def correct(self, exact: np.ndarray, choice: np.ndarray) -> np.ndarray:
        """bool ``[rows]``, from a model's exact matches and its choices, both ``[rows]``."""
        return exact if self.choices is None else np.equal(choice, self.choices.right)


def open_tokenizer(folder: Path) -> Any:
    """The tokenizer as trained."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def open_held_out(job: Job[EvalOptions], tokenizer: Any) -> HeldOut:
    """Read the rows, and check them against ``eval.choices`` before any model is opened.

    Raises:
        RegrowError: choices that cannot be told apart, or a row that begins with none of them.
    """
    tokens, sources = TokenTable(job.inputs["tokens"].path), job.inputs["tokens"].content["sources"]
    train, evaluation = (Bins.load(job.inputs["packed"].path / f"{split}.arrow") for split in ("train", "eval"))
    rows, unjudged = load_rows(tokens, evaluation)
    trained = {tokens.digest[row].tobytes() for row in train.row}
    also_trained = sum(tokens.digest[row].tobytes() in trained for row in evaluation.row)
    texts = job.options.eval.choices
    choices = resolve_choices(texts, rows, tokenizer, sources) if texts and rows else None
    return HeldOut(rows, unjudged, also_trained, choices, sources, tokenizer)

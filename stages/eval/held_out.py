"""All that the models are judged on, opened once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.bins import Bins
from pipeline.options.views import EvalOptions
from pipeline.stage import Job
from pipeline.tokens import TokenTable
from stages.eval.choices import Choices, resolve_choices
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

    def correct(self, exact: np.ndarray, choice: np.ndarray) -> np.ndarray:
        """bool ``[rows]``, from a model's exact matches and its choices, both ``[rows]``."""
        return exact if self.choices is None else np.equal(choice, self.choices.right)


def open_held_out(job: Job[EvalOptions]) -> HeldOut:
    """Read the rows, and check them against ``eval.choices`` before any model is opened.

    Raises:
        RegrowError: choices that cannot be told apart, or a row that begins with none of them.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(job.inputs["tokenizer"].path, local_files_only=True)
    tokens, sources = TokenTable(job.inputs["tokens"].path), job.inputs["tokens"].content["sources"]
    train, evaluation = (Bins.load(job.inputs["packed"].path / f"{split}.arrow") for split in ("train", "eval"))
    rows, unjudged = load_rows(tokens, evaluation)
    trained = {tokens.digest[row].tobytes() for row in train.row}
    also_trained = sum(tokens.digest[row].tobytes() in trained for row in evaluation.row)
    texts = job.options.eval.choices
    choices = resolve_choices(texts, rows, tokenizer, sources) if texts and rows else None
    return HeldOut(rows, unjudged, also_trained, choices, sources, tokenizer)

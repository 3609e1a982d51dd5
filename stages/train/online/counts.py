"""Tokens that a run has learned from: known only once they are generated, and then in the log."""

from __future__ import annotations

from typing import Any

from pipeline.order import BinOrder
from stages.train.data.counts import SeenTokens


class SeenAnswers(SeenTokens):
    """From the log of ``trainer``: prompts and answers, of which answers are trained."""

    def __init__(self, trainer: Any, order: BinOrder) -> None:
        self._trainer, self.order = trainer, order

    def of(self, step: int) -> int:
        """Tokens that the optimizer step ``step`` (from 1) saw."""
        return self.after(step)[0] - self.after(step - 1)[0]

    def after(self, step: int) -> tuple[int, int]:
        """(tokens, trained tokens) after ``step`` optimizer steps, counting every pass over a token."""
        for entry in reversed(self._trainer.state.log_history):
            if "tokens" in entry and entry["step"] <= step:
                return entry["tokens"], entry["trained_tokens"]
        return 0, 0

"""Models that judge text instead of writing it: how often a reward model prefers the better answer, and steps are judged rightly.

The base model has no head that judges, so there is nothing to compare with but chance, or always saying the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pipeline.bins import Bins
from pipeline.errors import RegrowError
from pipeline.progress import Task
from pipeline.tokens import TokenTable
from stages.eval.judge import pad_right
from stages.eval.rows import make_batches
from stages.eval.scores import Scores, named, proportion, rounded
from stages.eval.statistics import mcnemar_p, percentile_interval, resample_means

_MAX_TOKENS = 2**16
"""Of a batch, with padding: hidden states are all that a head without a vocabulary needs."""


@dataclass(frozen=True)
class Judged:
    """A held-out row for a model that judges.

    Attributes:
        texts: int64 ``[tokens]`` each: the better and the worse answer with their prompt, or one text with steps.
        places: int64 ``[steps]``, where the steps end; empty for answers.
        labels: int64 ``[steps]``, whether each is right.
        source: index into the tokens manifest's ``sources``.
        row: row number in that source's file.
    """

    texts: tuple[np.ndarray, ...]
    places: np.ndarray
    labels: np.ndarray
    source: int
    row: int


def load_judged(tokens: TokenTable, bins: Bins) -> list[Judged]:
    """The held-out rows in plan order: pairs, or texts with labels."""
    found = []
    for number in range(len(bins)):
        for row, start, length in bins.spans(number):
            span = slice(start, start + length)
            texts, places, labels = [tokens.ids(row)[span].astype(np.int64)], np.zeros(0, np.int64), np.zeros(0, np.int64)
            if tokens.paired:
                texts.append(tokens.rejected_ids(row)[span].astype(np.int64))
            else:
                all_places = np.flatnonzero(tokens.mask(row))
                kept = (all_places >= start) & (all_places < start + length)
                places, labels = all_places[kept] - start, tokens.labels(row)[: len(all_places)][kept].astype(np.int64)
            found.append(Judged(tuple(texts), places, labels, int(tokens.source[row]), int(tokens.row[row])))
    return found


@torch.inference_mode()
def judge_rows(name: str, model: Any, rows: Sequence[Judged], batch_size: int, task: Task) -> list[list[float]]:
    """By row: the reward of each of its texts; or of each step the share of its label 1.

    Raises:
        RegrowError: a judgement is not a number.
    """
    texts = [(number, text) for number, row in enumerate(rows) for text in row.texts]
    pad = model.config.pad_token_id
    judged: list[list[float]] = [[] for _ in texts]
    # Without a padding token the model finds the end of one text only.
    for batch in make_batches([len(text) for _, text in texts], 1 if pad is None else batch_size, _MAX_TOKENS):
        ids = pad_right([texts[place][1] for place in batch], pad or 0)
        attention = pad_right([np.ones_like(texts[place][1]) for place in batch], 0)
        logits = model(input_ids=ids.to(model.device), attention_mask=attention.to(model.device)).logits.float().cpu()
        for position, place in enumerate(batch):
            row = rows[texts[place][0]]
            judged[place] = logits[position, row.places].softmax(-1)[:, 1].tolist() if len(row.places) else [float(logits[position, 0])]
        task.advance(len(batch), tokens=int(attention.sum()))
    if not np.isfinite([value for values in judged for value in values]).all():
        raise RegrowError(f"The {name} model's judgements are not numbers: its weights are broken.", "data/trained/log.csv shows where.")
    by_row: list[list[float]] = [[] for _ in rows]
    for (number, _), values in zip(texts, judged, strict=True):
        by_row[number] += values
    return by_row


def score_judgements(found: Mapping[str, Sequence[Sequence[float]]], rows: Sequence[Judged], seed: int) -> dict[str, Scores]:
    """By model: accuracy with its interval, and p against what nothing learnt would score."""
    score = _score_steps if len(rows[0].texts) == 1 else _score_pairs
    return {name: rounded(score(values, rows, seed)) for name, values in found.items()}


def _score_pairs(values: Sequence[Sequence[float]], rows: Sequence[Judged], seed: int) -> Scores:
    better, worse = np.array(values).T
    right, wrong = int((better > worse).sum()), int((better < worse).sum())
    margins = resample_means((better - worse)[None], np.ones(len(rows)), seed)[:, 0]
    scores: Scores = {"pairs": len(rows)} | proportion("accuracy", better > worse) | {"p_value": mcnemar_p(wrong, right)}
    return scores | {"margin": float((better - worse).mean())} | named("margin", percentile_interval(margins))


def _score_steps(values: Sequence[Sequence[float]], rows: Sequence[Judged], seed: int) -> Scores:
    labels, found = np.concatenate([row.labels for row in rows]), np.concatenate([np.array(given) for given in values])
    right = (found > 0.5) == (labels == 1)
    usual = int(np.bincount(labels).argmax())
    always = labels == usual
    # Against always saying what is most frequent, step by step.
    p = mcnemar_p(int((always & ~right).sum()), int((right & ~always).sum()))
    return {"steps": len(labels)} | proportion("accuracy", right) | {"p_value": p, "majority_share": float(always.mean())}

"""Answers compared with those of the data as texts: BLEU, chrF and TER, as the package sacrebleu has them (Post 2018).

Whether a difference to the first model is more than chance: paired bootstrap over the turns (Koehn 2004), by the same package.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from pipeline.errors import MissingExtra

RESAMPLES = 1000
_CLASSES = {"sacrebleu": "BLEU", "chrf": "CHRF", "ter": "TER"}
TEXT_METRICS = tuple(_CLASSES)


def require_sacrebleu(metrics: Sequence[str]) -> None:
    """Refuse before any model is opened.

    Raises:
        MissingExtra: a metric needs the package, which is not installed.
    """
    needed = [name for name in metrics if name in _CLASSES]
    if needed and find_spec("sacrebleu") is None:
        raise MissingExtra(f"do_causal_lm_eval with {', '.join(needed)}", "sacrebleu", "sacrebleu")


def compare_texts(answers: Mapping[str, Sequence[str]], references: Sequence[str], metrics: Sequence[str]) -> dict[str, dict[str, Any]]:
    """By model: each metric's score (0 to 100; of ter, lower is better), and from the second model on its p against the first.

    Args:
        answers: by model, one per turn; at least one turn.
        references: one per turn.
        metrics: of :data:`TEXT_METRICS`.
    """
    found: dict[str, dict[str, Any]] = {name: {} for name in answers}
    for metric in metrics:
        for name, (score, p) in zip(answers, _compare(metric, answers, references), strict=True):
            found[name] |= {metric: score} | ({} if p is None else {f"{metric}_p_value": p})
    return found


def _compare(metric: str, answers: Mapping[str, Sequence[str]], references: Sequence[str]) -> list[tuple[float, float | None]]:
    from sacrebleu import metrics as classes
    from sacrebleu.significance import PairedTest

    logging.getLogger("sacrebleu").setLevel(logging.ERROR)
    scorer = getattr(classes, _CLASSES[metric])(references=[list(references)])
    systems: Any = [(name, list(texts)) for name, texts in answers.items()]
    _, results = PairedTest(systems, {metric: scorer}, references=None, test_type="bs", n_samples=RESAMPLES)()
    del results["System"]
    scores: Any = next(iter(results.values()))
    # Of equal scores the package gives the smallest p there is: it counts samples that differ by more than they do.
    base = scores[0].score
    return [(float(base), None), *((float(result.score), 1.0 if result.score == base else float(result.p_value)) for result in scores[1:])]

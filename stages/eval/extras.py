"""Scores besides those of the held-out loss: the benchmark's questions, answers to every turn, sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stages.eval.answers import Turn, decode
from stages.eval.benchmark import Benchmark
from stages.eval.generate import Ending, Generated, until_end
from stages.eval.scores import Scores, compare_rights, proportion, rounded
from stages.eval.subjects import Subject
from stages.eval.text_metrics import TEXT_METRICS, compare_texts


def score_benchmark(chosen: Mapping[str, np.ndarray], benchmark: Benchmark) -> dict[str, Scores]:
    """By model, the base first: accuracy over all questions, against base, and of each subject where there are several.

    Args:
        chosen: by model int64 ``[questions]``, index of the letter that it finds likeliest.
    """
    right = np.array([question.right for question in benchmark.questions])
    subjects = [question.subject or "(none)" for question in benchmark.questions]
    of_subject = {name: np.flatnonzero(np.array(subjects) == name) for name in sorted(set(subjects))}
    base = next(iter(chosen.values())) == right
    scores = {}
    for position, (name, letters) in enumerate(chosen.items()):
        correct = letters == right
        found: Scores = {"questions": len(right)} | proportion("accuracy", correct)
        found |= {"vs_base": compare_rights(base, correct)} if position else {}
        if len(of_subject) > 1:
            found["subjects"] = {
                subject: {"questions": len(rows)} | proportion("accuracy", correct[rows]) for subject, rows in of_subject.items()
            }
        scores[name] = rounded(found)
    return scores


def majority_share(benchmark: Benchmark) -> float:
    """Accuracy of always giving the most frequent letter."""
    return float(np.bincount([question.right for question in benchmark.questions]).max() / len(benchmark.questions))


def answer_texts(given: Sequence[Generated], tokenizer: Any) -> list[str]:
    """Answers without special tokens."""
    return [decode(answer.ids, tokenizer, special=False) for answer in given]


def reference_texts(turns: Sequence[Turn], tokenizer: Any, ending: Ending) -> list[str]:
    """The data's answers likewise."""
    return [decode(until_end(turn.reference, ending).ids, tokenizer, special=False) for turn in turns]


def score_answers(
    texts: Mapping[str, Sequence[str]], references: Sequence[str], metrics: Sequence[str], held_out: Mapping[str, Scores]
) -> dict[str, Scores]:
    """By model: the metrics asked for, over all turns. ``held_out``: scores of the held-out rows, which have the perplexity."""
    found = compare_texts(texts, references, [name for name in metrics if name in TEXT_METRICS])
    scores = {}
    for name, given in texts.items():
        same = np.array([text.strip() == reference.strip() for text, reference in zip(given, references, strict=True)])
        perplexity = {"perplexity": held_out[name]["perplexity"]} if "perplexity" in metrics else {}
        scores[name] = rounded({"turns": len(references), "same": float(same.mean())} | found[name] | perplexity)
    return scores


def score_sizes(subjects: Sequence[Subject], scores: Mapping[str, Scores]) -> dict[str, Scores]:
    """By model: bytes of its weights and bits of one, and of quantised models their perplexity over that of the merged one."""
    found: dict[str, Scores] = {}
    for subject in subjects:
        facts: Scores = {"weights_bytes": subject.size}
        facts |= {} if subject.bits_per_weight is None else {"bits_per_weight": subject.bits_per_weight}
        if scores and subject.name not in ("base", "merged"):
            own, merged = scores[subject.name]["perplexity"], scores["merged"]["perplexity"]
            facts |= {} if own is None or merged is None else {"perplexity_ratio": own / merged}
        found[subject.name] = rounded(facts)
    return found

"""Functions that score answers in these tests."""

from __future__ import annotations

from typing import Any


def digits(prompts: list[Any], completions: list[str], **columns: Any) -> list[float]:
    """Characters above the letter P, which a model of random weights often writes and often not."""
    return [sum(letter > "P" for letter in completion) / 6 for completion in completions]


def length(prompts: list[Any], completions: list[str], answer: list[int], **columns: Any) -> list[float]:
    """Long answers are good; also proves that columns come along."""
    assert all(isinstance(number, int) for number in answer) and len(answer) == len(completions)
    return [float(len(completion)) for completion in completions]


def nothing(completions: list[str]) -> list[float]:
    """Takes too little."""
    return [0.0 for _ in completions]


def breaks(prompts: list[Any], completions: list[str], **columns: Any) -> list[float]:
    """Fails."""
    raise KeyError("answer")


def few(prompts: list[Any], completions: list[str], **columns: Any) -> list[float]:
    """Returns too little."""
    return [1.0]


async def waits(prompts: list[Any], completions: list[str], **columns: Any) -> list[float]:
    """Asks something elsewhere."""
    return digits(prompts, completions)


def of_messages(prompts: list[Any], completions: list[Any], **columns: Any) -> list[float]:
    """Asked with messages, the model answers with one."""
    assert all(prompt[0]["role"] == "user" for prompt in prompts)
    return [float(len(completion[0]["content"])) for completion in completions]


def recite(prompts: list[str], trainer: Any) -> dict[str, Any]:
    """Generates without a model: the alphabet, in capitals and not."""
    encode = trainer.processing_class.encode
    answers = [encode(word) for word in ("ABCD", "ABCD", "abcd", "abcd")] * (len(prompts) // 4)
    return {"prompt_ids": [encode(prompt) for prompt in prompts], "completion_ids": answers, "logprobs": None}


NUMBER = 5

WORDS = ["ABCD", "ab", "zzzz!", "Q"]
"""Answers of unequal length and worth."""


def recite_unevenly(prompts: list[str], trainer: Any) -> dict[str, Any]:
    """The same answers to every prompt."""
    encode = trainer.processing_class.encode
    answers = [encode(word) for word in WORDS] * (len(prompts) // len(WORDS))
    return {"prompt_ids": [encode(prompt) for prompt in prompts], "completion_ids": answers, "logprobs": None}

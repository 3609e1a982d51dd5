"""Who scores the answers: rewards that can be checked, without another model.

A reward function gets the prompts, the answers (`completions`) and every other column of the rows by its name, and returns a number
for each answer. params.yaml names these under `trl.reward_funcs`; an edit here trains again, and nothing before that.
"""

import re

NUMBER = re.compile(r"-?\d+")


def correct(prompts: list, completions: list, answer: list[int], **columns) -> list[float]:
    """1 where the last number of the answer is the right one."""
    found = [NUMBER.findall(text_of(completion)) for completion in completions]
    return [float(bool(numbers) and numbers[-1] == str(right)) for numbers, right in zip(found, answer, strict=True)]


def close(prompts: list, completions: list, answer: list[int], **columns) -> list[float]:
    """The nearer the last number, the more. Where hardly any answer is right, this is what there is to learn from."""
    found = [NUMBER.findall(text_of(completion)) for completion in completions]
    return [1 / (1 + abs(int(numbers[-1]) - right)) if numbers else 0.0 for numbers, right in zip(found, answer, strict=True)]


def brief(prompts: list, completions: list, **columns) -> list[float]:
    """1 for a number and nothing else; the share of digits otherwise."""
    texts = [text_of(completion).strip() for completion in completions]
    return [1.0 if NUMBER.fullmatch(text) else share_of_digits(text) for text in texts]


def text_of(completion: str | list) -> str:
    """Where prompts are messages, an answer is a list of one message."""
    return completion if isinstance(completion, str) else completion[0]["content"]


def share_of_digits(text: str) -> float:
    return sum(letter.isdigit() for letter in text) / max(1, len(text))

"""What is measured while a model is trained, by what it learns: names in log.csv, and after ``eval_`` in eval.csv."""

from __future__ import annotations

PAIRS = ("rewards/accuracies", "rewards/margins", "rewards/chosen", "rewards/rejected")
"""Share of pairs whose better answer has the higher reward; means of the difference of the rewards, and of each."""

FEEDBACK = ("rewards/margins", "rewards/chosen", "rewards/rejected", "kl")
"""Means over wanted and unwanted answers, their difference, and the divergence from the reference (KTO)."""

SCORES = ("rewards/accuracies", "rewards/margins", "rewards/mean")
"""Of a reward model; its rewards are its scores."""

GENERATED = ("eval_reward", "eval_reward_std", "eval_completion_length", "eval_cut_off")
"""Of answers that the model generates to held-out prompts; besides, each reward by its name."""


def rewards(rl: str | None, reward_model: bool) -> tuple[str, ...]:
    """Measured in every step besides the loss."""
    if reward_model:
        return SCORES
    return {"kto": FEEDBACK}.get(rl, PAIRS) if rl is not None else ()


def evaluated(rl: str | None, reward_model: bool, process_reward_model: bool) -> tuple[str, ...]:
    """Measured on held-out rows."""
    if rl in ("grpo", "gdpo"):
        return GENERATED
    if process_reward_model:
        return ("eval_loss", "eval_accuracy")
    names = rewards(rl, reward_model) or ("perplexity", "accuracy")
    return tuple(f"eval_{name}" for name in ("loss", *names))


def is_better_greater(metric: str) -> bool:
    """Whether a larger value of ``metric`` is the better one."""
    return not metric.endswith(("loss", "perplexity", "kl"))

"""The loss of a first and of a second update, computed again from nothing but weights, answers and rewards."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.train.online.rewards import WORDS, digits
from tests.train.online.workspace import REWARDS, completions, grpo
from tests.train.workspace import read_log, train

LOW, HIGH, BETA, LONGEST = 0.1, 0.3, 0.2, 6
ONE = {"micro_batch_size": 4, "gradient_accumulation_steps": 1, "lr_scheduler": "constant", "learning_rate": 0.05, "warmup_steps": 0}
TRL = {"rollout_func": f"{REWARDS}.recite_unevenly", "beta": BETA, "epsilon": LOW, "epsilon_high": HIGH, "num_iterations": 2}


def log_probs(model: Path, tokenizer: Path, prompt: str) -> list[torch.Tensor]:
    """Of each token of each answer, float64 ``[tokens]``, answer by answer, without padding."""
    opened, encode = AutoModelForCausalLM.from_pretrained(model).double(), AutoTokenizer.from_pretrained(tokenizer).encode
    found = []
    for word in WORDS:
        question, answer = encode(prompt), encode(word)
        ids = torch.tensor([question + answer])
        with torch.no_grad():
            logs = opened(ids).logits[0].log_softmax(-1)
        found.append(logs[range(len(question) - 1, ids.shape[1] - 1), answer])
    return found


def expected(kind: str, old: list[torch.Tensor], new: list[torch.Tensor]) -> float:
    """As the papers have it, for one prompt whose reference is the old model."""
    rewards = torch.tensor(digits([], WORDS), dtype=torch.float64)
    advantages = (rewards - rewards.mean()) / (rewards.std() + 1e-4)
    losses = []
    for advantage, before, now in zip(advantages, old, new, strict=True):
        ratio = (now - before).exp()
        if kind == "cispo":
            surrogate = ratio.clamp(max=HIGH) * advantage * now
        else:
            surrogate = torch.minimum(ratio * advantage, ratio.clamp(1 - LOW, 1 + HIGH) * advantage)
        divergence = (before - now).exp() - (before - now) - 1
        losses.append(-surrogate + BETA * ratio * divergence)  # the ratio makes its gradient that of the reverse divergence
    together: dict[str, Callable[[], torch.Tensor]] = {
        "grpo": lambda: torch.stack([loss.mean() for loss in losses]).mean(),
        "bnpo": lambda: torch.cat(losses).mean(),
        "dapo": lambda: torch.cat(losses).mean(),
        "cispo": lambda: torch.cat(losses).mean(),
        "dr_grpo": lambda: torch.cat(losses).sum() / (len(losses) * LONGEST),
    }
    return float(together[kind]())


@pytest.mark.parametrize("kind", ["grpo", "bnpo", "dapo", "dr_grpo", "cispo"])
def test_losses(asking: Path, tmp_path: Path, kind: str) -> None:
    trl = TRL | {"loss_type": kind}
    once, _ = train(asking, grpo(**ONE, max_steps=1, trl=trl))
    shutil.copytree(once.path, tmp_path / "once")
    twice, _ = train(asking, grpo(**ONE, max_steps=2, trl=trl))
    (prompt,) = {line["prompt"] for line in completions(twice.path)}
    old, new = (log_probs(folder, asking / "data" / "tokenizer", prompt) for folder in (asking / "data" / "base", tmp_path / "once"))
    first, second = (line["loss"] for line in read_log(twice))
    assert first == pytest.approx(expected(kind, old, old), rel=1e-4, abs=1e-5)
    assert second == pytest.approx(expected(kind, old, new), rel=1e-4) and abs(second) > 0.01

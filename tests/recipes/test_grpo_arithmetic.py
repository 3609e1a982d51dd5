"""The rows and rewards of recipes/grpo_arithmetic."""

from __future__ import annotations

import json

import pytest

from recipes.grpo_arithmetic import problems, rewards


def test_the_rows_are_those_that_the_script_makes() -> None:
    assert [json.loads(line) for line in problems.PATH.read_text(encoding="utf-8").splitlines()] == problems.problems()


@pytest.mark.parametrize(("text", "scores"), [
    ("12", (1.0, 1.0, 1.0)),
    ("-12", (0.0, 1 / 25, 1.0)),
    ("7 + 5 = 12", (1.0, 1.0, 0.4)),
    ("11.", (0.0, 0.5, 2 / 3)),
    ("twelve", (0.0, 0.0, 0.0)),
    ("", (0.0, 0.0, 0.0)),
])  # fmt: skip
def test_rewards(text: str, scores: tuple[float, ...]) -> None:
    for completion in (text, [{"role": "assistant", "content": text}]):
        found = [function([], [completion], answer=[12])[0] for function in (rewards.correct, rewards.close, rewards.brief)]
        assert found == pytest.approx(scores)

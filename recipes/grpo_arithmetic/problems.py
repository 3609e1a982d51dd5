"""Makes problems.jsonl, the rows of this recipe: `python recipes/grpo_arithmetic/problems.py`. The same rows every time."""

import json
import random
from pathlib import Path

PATH = Path(__file__).with_name("problems.jsonl")


def problems(count: int = 400) -> list[dict]:
    """Sums and differences of small numbers, each once, with what scores them beside the question."""
    every = [(a, sign, b) for a in range(2, 21) for b in range(2, 21) for sign in "+-" if sign == "+" or a >= b]
    chosen = random.Random(0).sample(every, count)
    return [
        {
            "messages": [{"role": "user", "content": f"What is {a} {sign} {b}? Answer with the number only."}],
            "answer": a + b if sign == "+" else a - b,
        }
        for a, sign, b in chosen
    ]


if __name__ == "__main__":
    PATH.write_text("".join(json.dumps(row) + "\n" for row in problems()), encoding="utf-8")

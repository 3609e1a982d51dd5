"""Makes the rows of these recipes: `python recipes/preferences/rows.py`. The same rows every time.

Questions about small sums. The better answers are short and right; the worse ones chatter, or are wrong.
"""

import json
import random
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
CHATTER = ("What a nice question! Let me think about it. ", "I am not sure, but maybe ", "As an assistant I would say: ", "Well, well. ")


def sums(count: int) -> list[tuple[int, int]]:
    """Pairs of numbers, each once."""
    every = [(a, b) for a in range(2, 30) for b in range(2, 30)]
    return random.Random(0).sample(every, count)


def pairs(count: int = 240) -> list[dict[str, Any]]:
    """A prompt and two answers: for DPO, IPO, SimPO, ORPO, and as `input` for a reward model."""
    rng = random.Random(1)
    rows = []
    for a, b in sums(count):
        worse = rng.choice(CHATTER) + f"{a + b}." if rng.random() < 0.5 else f"{a + b + rng.choice([-2, -1, 1, 2])}."
        question = f"What is {a} + {b}?"
        rows.append({"prompt": question, "input": question, "chosen": f"{a + b}.", "rejected": worse})
    return rows


def feedback(count: int = 240) -> list[dict[str, Any]]:
    """One answer, and whether it is wanted: for KTO."""
    rng = random.Random(2)
    rows = []
    for row in pairs(count):
        wanted = rng.random() < 0.5
        rows.append({"prompt": row["prompt"], "completion": row["chosen" if wanted else "rejected"], "label": wanted})
    return rows


def steps(count: int = 240) -> list[dict[str, Any]]:
    """Sums of three numbers in two steps, each right or wrong: for a model that judges steps."""
    rng = random.Random(3)
    rows = []
    for a, b in sums(count):
        c = rng.randint(2, 9)
        first, second = rng.random() < 0.6, rng.random() < 0.6
        half = a + b + (0 if first else rng.choice([-1, 1]))
        whole = half + c + (0 if second else rng.choice([-1, 1]))
        completions = [f"{a} + {b} = {half}", f"{half} + {c} = {whole}"]
        rows.append({"prompt": f"What is {a} + {b} + {c}?", "completions": completions, "labels": [first, second]})
    return rows


if __name__ == "__main__":
    for name, rows in (("pairs", pairs()), ("feedback", feedback()), ("steps", steps())):
        (FOLDER / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

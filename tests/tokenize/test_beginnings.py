"""A tokenizer that puts a token before every text: rows begin with it once, and it is trained where the first character is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.tokenize.aims import tokenize_for
from tests.tokenize.rows import full_text

BEGIN = "<|im_start|>"
ALPACA = {"instruction": "q", "output": "a"}
REFLECTION = ALPACA | {"reflection": "b", "corrected": "c"}
PAIR = {"prompt": "q", "chosen": "a", "rejected": "b"}


@pytest.mark.parametrize(
    ("aim", "kind", "row", "trained"),
    [
        ({}, "completion", {"text": "a"}, True),
        ({}, "completion", {"text": f"{BEGIN}a"}, True),
        ({}, "alpaca", ALPACA, False),
        ({"train_on_inputs": True}, "alpaca", ALPACA, True),
        ({}, {"format": "", "no_input_format": ""}, ALPACA, False),
        ({}, {"no_input_format": f"{BEGIN}[INST] {{instruction}}"}, ALPACA, False),
        ({}, "reflection", REFLECTION, False),
        ({}, "metharme", {"prompt": "", "generation": "a"}, False),
        ({}, "pygmalion", {"conversations": [{"role": "bot", "value": "a"}]}, False),
        ({}, "llama2_chat", {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}, False),
        ({"rl": "dpo"}, "passthrough", PAIR, False),
        ({"rl": "dpo"}, "passthrough", PAIR | {"prompt": f"{BEGIN}q"}, False),
        ({"rl": "kto"}, None, {"prompt": "q", "completion": "a", "label": True}, False),
        ({"process_reward_model": True}, "stepwise_supervised", {"prompt": "q", "completions": ["a"], "labels": [1]}, False),
    ],
)
def test_a_row_begins_once(tmp_path: Path, aim: dict[str, Any], kind: Any, row: dict[str, Any], trained: bool) -> None:
    table = tokenize_for(tmp_path, aim, [row], begins=True, type=kind)
    assert full_text(table, 0).startswith(BEGIN) and full_text(table, 0).count(BEGIN) == 1
    assert bool(table.mask(0)[0]) == trained


def test_segments_have_only_what_they_say(tmp_path: Path) -> None:
    table = tokenize_for(tmp_path, {}, [{"segments": [{"label": True, "text": "a"}]}], begins=True, type="input_output")
    assert full_text(table, 0) == "a"

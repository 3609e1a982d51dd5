"""The rows of recipes/preferences are those that its script makes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recipes.preferences import rows as made

FOLDER = Path(__file__).parents[2] / "recipes" / "preferences"


def test_there_is_a_recipe_for_each_method() -> None:
    methods = {"dpo", "ipo", "kto", "orpo", "simpo", "reward_model", "process_reward_model"}
    assert {path.stem for path in FOLDER.glob("*.yaml")} == methods


@pytest.mark.parametrize("name", ["pairs", "feedback", "steps"])
def test_the_rows_are_those_that_the_script_makes(name: str) -> None:
    lines = (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == getattr(made, name)()

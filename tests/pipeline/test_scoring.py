"""Functions and models that score answers are part of what identifies train, and of nothing before it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.configure import stage_document
from pipeline.errors import RegrowError
from pipeline.identity import read_lock
from pipeline.options.reading.source import parse
from pipeline.options.recipe import Recipe, check_source
from pipeline.project import Project
from pipeline.scoring import scoring_modules
from stages import pack, tokenize, train
from tests.options.configs import GOOD

REPOSITORY = Project(Path(__file__).parents[2])
CORRECT = "recipes.grpo_arithmetic.rewards.correct"


def recipe_of(trl: str) -> Recipe:
    return check_source(parse(f"{GOOD}rl: grpo\nmicro_batch_size: 8\ntrl: {{{trl}}}\n", "params.yaml"))


def document(trl: str, stage: Any = train) -> dict[str, Any]:
    return stage_document(REPOSITORY, recipe_of(trl), stage.STAGE, read_lock(REPOSITORY.lock))


def test_the_code_of_functions_counts_for_train_alone() -> None:
    trl = f"reward_funcs: [{CORRECT}], rollout_func: recipes.headlines.to_messages"
    assert {"recipes/grpo_arithmetic/rewards.py", "recipes/headlines.py"} < document(trl)["code"].keys()
    for stage in (tokenize, pack):
        assert not any(name.startswith("recipes/") for name in document(trl, stage)["code"])
        assert document(trl, stage) == document("reward_funcs: [recipes.grpo_arithmetic.rewards.brief]", stage)


def test_a_reward_model_is_known_by_its_bytes(tmp_path: Path) -> None:
    def identity(folder: Path) -> Any:
        return document(f"reward_funcs: [{CORRECT}, {folder}]")["options"]["trl"]["reward_funcs"]

    (tmp_path / "a" / "judge").mkdir(parents=True)
    (tmp_path / "a" / "judge" / "model.safetensors").write_bytes(b"weights")
    first = identity(tmp_path / "a" / "judge")
    assert first[0] == CORRECT and first[1].keys() == {"name", "model.safetensors"}
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert identity(tmp_path / "b" / "judge") == first
    (tmp_path / "b" / "judge" / "model.safetensors").write_bytes(b"others")
    assert identity(tmp_path / "b" / "judge") != first


def test_functions_of_trl_need_no_module_of_the_project() -> None:
    assert scoring_modules(REPOSITORY, recipe_of("reward_funcs: [trl.rewards.think_format_reward]")) == []


@pytest.mark.parametrize("name", ["recipes.grpo_arithmetic.reward.correct", "numpy.mean", "owner/reward-model", "correct"])
def test_what_is_nowhere(name: str) -> None:
    with pytest.raises(RegrowError, match=f"trl.reward_funcs: '{name}' is neither a function"):
        scoring_modules(REPOSITORY, recipe_of(f"reward_funcs: [{name}]"))
    with pytest.raises(RegrowError, match=r"trl\.rollout_func: 'a\.b' is neither"):
        scoring_modules(REPOSITORY, recipe_of(f"reward_funcs: [{CORRECT}], rollout_func: a.b"))

"""The recipe of recipes/grpo_arithmetic through all stages after fetch, with a tiny model and a few steps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.forecast import forecast
from pipeline.lineage.opened import open_lineage
from pipeline.options.views import TrainOptions
from recipes.grpo_arithmetic import problems, rewards
from stages.dedupe import STAGE as DEDUPE
from stages.eval import STAGE as EVAL
from stages.merge import STAGE as MERGE
from stages.pack import STAGE as PACK
from stages.tokenize import STAGE as TOKENIZE
from stages.train import STAGE as TRAIN
from tests.recipes.test_preferences import Project

FOLDER = Path(__file__).parents[2] / "recipes" / "grpo_arithmetic"


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


def test_the_recipe_runs(tmp_path: Path) -> None:
    project = Project(FOLDER / "params.yaml", tmp_path, {"max_steps: 60": "max_steps: 4", "warmup_steps: 5": "warmup_steps: 0"})
    for stage in (TOKENIZE, DEDUPE, PACK):
        project.run(stage)
    planned = list(forecast(project.data, TrainOptions.model_validate(project.options.model_dump())))
    assert planned[1] == "    384 prompts, 2 a step, 8 answers to each: 64 answers of up to 8 tokens"
    _, metrics = project.run(TRAIN)
    assert metrics["kind"] == "adapter" and metrics["steps"] == 4
    lines = (project.data / "trained" / "completions.jsonl").read_text(encoding="utf-8").splitlines()
    asked = {(line["step"], line["prompt"][0]["content"]) for line in map(json.loads, lines)}
    project.run(MERGE)
    assert json.loads((project.data / "merged" / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]
    lineage = open_lineage(project.data)
    for step, question in asked:
        rows = [int(lineage.bins["train"].row[number]) for number in lineage.order.bins_of(step).tolist()]
        assert lineage.tokens.table.reference(rows[0])["prompt"][0]["content"] == question
    project.run(EVAL)
    page = (project.data / "eval" / "report.html").read_text(encoding="utf-8")
    assert "Mean reward of the generated answers" in page and "Answer with the number only." in page

"""Every recipe of recipes/preferences through all stages after fetch, with a tiny model and two steps."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeline.options.reading.source import parse
from pipeline.options.recipe import check_source
from pipeline.progress import Progress
from pipeline.runner import execute
from recipes.preferences import rows as made
from stages.dedupe import STAGE as DEDUPE
from stages.eval import STAGE as EVAL
from stages.merge import STAGE as MERGE
from stages.pack import STAGE as PACK
from stages.tokenize import STAGE as TOKENIZE
from stages.train import STAGE as TRAIN
from tests.tiny import publish_artifact, save_model, save_tokenizer

FOLDER = Path(__file__).parents[2] / "recipes" / "preferences"
RECIPES = sorted(FOLDER.glob("*.yaml"))

SHORTER = {
    "num_epochs: 2\n": "max_steps: 2\n",
    "eval_steps: 25": "eval_steps: 2",
    "warmup_steps: 5": "warmup_steps: 0",
    "sequence_len: 96": "sequence_len: 256",  # a token is a byte here
}


def test_there_is_one_for_each_method() -> None:
    methods = {"dpo", "ipo", "kto", "orpo", "simpo", "reward_model", "process_reward_model"}
    assert {path.stem for path in RECIPES} == methods


@pytest.mark.parametrize("name", ["pairs", "feedback", "steps"])
def test_the_rows_are_those_that_the_script_makes(name: str) -> None:
    lines = (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == getattr(made, name)()


class Project:
    """``data`` with what fetch would have made of a recipe."""

    def __init__(self, recipe: Path, folder: Path, shorter: Mapping[str, str] = SHORTER) -> None:
        text = recipe.read_text(encoding="utf-8")
        for long, short in shorter.items():
            assert long in text
            text = text.replace(long, short)
        self.options = check_source(parse(text, recipe.name)).options
        self.data = folder / "data"
        publish_artifact(self.data, "base", save_model, model_type="llama", revision=None, source=None)
        publish_artifact(self.data, "tokenizer", save_tokenizer, vocab_size=259)
        publish_artifact(self.data, "benchmark", lambda path: None, sources=[])
        publish_artifact(self.data, "quantized", lambda path: None, formats={})
        source = {"name": "train-00", "split": "train", "path": self.options.datasets[0].path, "file": "rows.jsonl", "revision": None}
        publish_artifact(self.data, "raw", self._copy_rows, sources=[source | {"rows_file": "train-00/00000.jsonl", "numbers": None}])

    def _copy_rows(self, folder: Path) -> None:
        (folder / "train-00").mkdir()
        shutil.copyfile(FOLDER.parents[1] / self.options.datasets[0].path, folder / "train-00" / "00000.jsonl")

    def run(self, stage: Any) -> Any:
        scratch = self.data.parent / ".regrow" / stage.name
        places = {"data": self.data, "scratch": scratch, "sources": self.data, "cache": scratch / "cache", "progress": Progress()}
        view = stage.options.model_validate(self.options.model_dump())
        return execute(stage, view, identity="test", code="test", **places)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_runs(recipe: Path, tmp_path: Path) -> None:
    project = Project(recipe, tmp_path)
    judges = project.options.reward_model or project.options.process_reward_model
    for stage in (TOKENIZE, DEDUPE, PACK):
        project.run(stage)
    _, metrics = project.run(TRAIN)
    assert metrics["steps"] == 2 and metrics["evaluations"] == 2
    assert metrics["kind"] == ("full" if judges else "adapter")
    held_out = json.loads((project.data / "packed" / "manifest.json").read_text())["content"]["eval"]["rows"]
    assert held_out == 40
    project.run(MERGE)
    config = json.loads((project.data / "merged" / "config.json").read_text())
    kind = "SequenceClassification" if project.options.reward_model else "TokenClassification" if judges else "CausalLM"
    assert config["architectures"] == [f"LlamaFor{kind}"]
    if not judges:
        _, found = project.run(EVAL)
        assert found["rows"] == 40 and {"base", "merged"} <= found.keys()

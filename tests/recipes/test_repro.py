"""Every recipe by `dvc repro`, all eight stages, in one project with a tiny model and few steps.

What recipes have in common is made once, as it would be for someone who tries one after the other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tokenizers import Tokenizer

from pipeline.forecast import forecast
from pipeline.lineage.opened import open_lineage
from pipeline.options.views import TrainOptions
from pipeline.tokens import TokenTable
from tests.test_pipeline import ALL, Clone

FOLDER = Path(__file__).parents[2] / "recipes"

pytestmark = pytest.mark.slow

TINY = {"base_model: pypi:": "base_model: ../model # "}
SHORTER = {
    "num_epochs: 2\n": "max_steps: 2\n",
    "eval_steps: 25": "eval_steps: 2",
    "warmup_steps: 5": "warmup_steps: 0",
    "sequence_len: 96": "sequence_len: 256",  # a token is a byte here
}
ONE_FORMAT = {"eval:\n": "quantize: [q8_0]\neval:\n"}
"""Where more than one recipe makes models that write: formats are not what these differ in."""
JUDGED = {
    ("dpo", "ipo", "simpo"): ("CausalLM", {"merged": "rows", "q8_0": "rows"}, 40),
    ("orpo",): ("CausalLM", {"merged": "rows", "q8_0": "rows"}, 40),
    ("reward_model",): ("SequenceClassification", {"merged": "pairs"}, 40),
    ("kto",): ("CausalLM", {"merged": "rows", "q8_0": "rows"}, 40),
    ("process_reward_model",): ("TokenClassification", {"merged": "steps"}, 80),
}
"""Recipes that differ in their method alone: the class of model they make, what eval counts of each model, and how many."""


class Tried(Clone):
    """A project in which one recipe after the other is tried."""

    def try_out(self, recipe: str, changes: Mapping[str, str]) -> list[str]:
        """Copy the recipe to params.yaml, with these texts changed; the stages that `dvc repro` ran."""
        text = (FOLDER / recipe).read_text(encoding="utf-8")
        for long, short in changes.items():
            assert long in text
            text = text.replace(long, short)
        (self.root / "params.yaml").write_text(text, encoding="utf-8")
        return self.repro()

    def json(self, name: str) -> Any:
        return json.loads((self.root / "data" / name).read_text(encoding="utf-8"))

    def lines(self, name: str) -> list[str]:
        return (self.root / "data" / name).read_text(encoding="utf-8").splitlines()

    def steps(self, name: str) -> list[str]:
        """Those in a log."""
        return [line.split(",")[0] for line in self.lines(name)[1:]]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Tried:
    return Tried(tmp_path_factory.mktemp("tried"))


def test_each_recipe_of_preferences_is_tried() -> None:
    assert sorted(name for names in JUDGED for name in names) == sorted(path.stem for path in (FOLDER / "preferences").glob("*.yaml"))


@pytest.mark.parametrize("names", JUDGED, ids=" ".join)
def test_recipes_of_preferences(project: Tried, names: Sequence[str]) -> None:
    """Those that differ in their method alone tokenize to the same artifact, so that nothing else of the data runs again."""
    architecture, counted, count = JUDGED[tuple(names)]
    for number, name in enumerate(names):
        ran = project.try_out(f"preferences/{name}.yaml", TINY | SHORTER | (ONE_FORMAT if architecture == "CausalLM" else {}))
        assert ran == ["tokenize", *ALL[4:]] if number else ran[-4:] == ALL[4:], name
        assert project.json("merged/config.json")["architectures"] == [f"LlamaFor{architecture}"]
        assert project.steps("trained/log.csv") == ["2"] and project.steps("trained/eval.csv") == ["0", "2"]
        found = project.json("eval/metrics.json")
        assert {model: found[model][of] for model, of in counted.items()} == dict.fromkeys(counted, count)
        assert set(found) - {"base", "held_out"} == set(counted)


def test_the_recipe_of_grpo(project: Tried) -> None:
    """The prompts that were answered are those that the lineage says, and the report shows them."""
    shorter = {"max_steps: 60": "max_steps: 4", "eval_steps: 30": "eval_steps: 4", "warmup_steps: 5": "warmup_steps: 0"}
    assert project.try_out("grpo_arithmetic/params.yaml", TINY | shorter)[-4:] == ALL[4:]
    assert project.json("merged/config.json")["architectures"] == ["LlamaForCausalLM"]
    assert project.steps("trained/eval.csv") == ["0", "4"]
    lineage = open_lineage(project.root / "data")
    answered = [json.loads(line) for line in project.lines("trained/completions.jsonl")]
    for line in answered:
        first = lineage.bins["train"].row[lineage.order.bins_of(line["step"])[0]]
        assert lineage.tokens.table.reference(int(first))["prompt"] == line["prompt"]
    assert {line["step"] for line in answered} == {1, 2, 3, 4}
    page = (project.root / "data/eval/report.html").read_text(encoding="utf-8")
    assert "Mean reward of the generated answers" in page and "Answer with the number only." in page
    planned = list(forecast(project.root / "data", TrainOptions.model_validate(project.json("options/train.json")["options"])))
    assert planned[1] == "    384 prompts, 2 a step, 8 answers to each: 64 answers of up to 8 tokens"


def test_the_recipe_of_piqa(project: Tried) -> None:
    """Its pairs are made by a function of its own from a table as the package has it."""
    rows = [
        {"goal": f"cool {number} cups", "sol1": f"use ice {number}", "sol2": f"use fire {number}", "label": number % 2}
        for number in range(24)
    ]
    write_table(project.root.parent / "piqa.arrow", rows)
    shorter = {"path: pypi:": "path: ../piqa.arrow # ", "val_set_size: 300": "val_set_size: 8", "sequence_len: 64": "sequence_len: 128"}
    steps = {"num_epochs: 1\n": "max_steps: 2\n", "eval_steps: 40": "eval_steps: 2", "warmup_steps: 5": "warmup_steps: 0"}
    assert project.try_out("dpo_piqa/params.yaml", TINY | shorter | steps | ONE_FORMAT)[-4:] == ALL[4:]
    assert project.steps("trained/eval.csv") == ["0", "2"] and project.json("eval/metrics.json")["merged"]["rows"] == 8
    tokens = TokenTable(project.root / "data/tokens")
    opened = Tokenizer.from_file(str(project.root / "data/tokenizer/tokenizer.json"))
    for row, (better, worse) in enumerate([("ice 0", "fire 0"), ("fire 1", "ice 1")]):
        texts = [opened.decode(ids.tolist(), skip_special_tokens=False) for ids in (tokens.ids(row), tokens.rejected_ids(row))]
        assert texts == [
            f"<|im_start|>user\ncool {row} cups<|im_end|>\n<|im_start|>assistant\nuse {end}<|im_end|>" for end in (better, worse)
        ]


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """As `datasets` saves it to a disk."""
    table = pa.Table.from_pylist([dict(row) for row in rows])
    with pa.ipc.new_stream(path, table.schema) as stream:
        stream.write_table(table)


def test_the_demo_with_an_adapter(project: Tried) -> None:
    """It answers held-out headlines, and all of its formats are judged."""
    rows = [{"input": [{"role": "user", "content": f"man bites {number} dogs"}], "ideal": str(number % 2)} for number in range(24)]
    (project.root.parent / "headlines.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    local = {"- path: pypi:": "- path: ../headlines.jsonl # ", "val_set_size: 300": "val_set_size: 8"}
    steps = {"max_steps: 60": "max_steps: 2", "eval_steps: 30": "eval_steps: 1", "warmup_steps: 5": "warmup_steps: 0"}
    assert project.try_out("headlines_lora.yaml", TINY | local | steps)[-4:] == ALL[4:]
    assert project.steps("trained/eval.csv") == ["0", "1", "2"]
    found = project.json("eval/metrics.json")
    assert all(found[name]["rows"] == 8 and 0 <= found[name]["accuracy"] <= 1 for name in ("base", "merged", "int8", "q8_0"))

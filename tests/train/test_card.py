"""The model card: valid for the hub, made of facts, the same for the same run, and without anything of this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from pipeline.artifact import Artifact
from stages.train.output.card import model_card
from tests.tiny import MINIMAL
from tests.train.workspace import FULL, LORA, train


def card_of(base: dict[str, Any], sources: list[dict[str, Any]], **options: Any) -> str:
    from pipeline.options.views import RecipeOptions, TrainOptions

    content: dict[str, dict[str, Any]] = {
        "base": base,
        "tokenizer": {},
        "tokens": {"sources": sources},
        "packed": {"content_digest": {"train": "0" * 64}, "train": {"rows": 3, "bins": 2}, "sequence_len": 64},
    }
    inputs = {name: Artifact(name, Path("/nowhere"), facts, {}, {}) for name, facts in content.items()}
    view = TrainOptions.model_validate(RecipeOptions.model_validate(MINIMAL | options).model_dump())
    return model_card(view, inputs, {"kind": "full", "loss": 1.5})


HUB = {"source": "owner/Model-1B", "revision": "c0ffee", "model_type": "llama"}
SOURCE = {
    "name": "train-00",
    "split": "train",
    "path": "owner/rows",
    "file": "a.parquet",
    "revision": "d00d",
    "type": "alpaca",
    "rows": 1234,
}


def test_the_header_links_to_what_is_on_the_hub() -> None:
    local = SOURCE | {"path": "/home/me/secret-place/rows.jsonl", "file": "rows.jsonl", "revision": None}
    benchmark = SOURCE | {"name": "against-00", "split": "against", "path": "owner/benchmark"}
    card = ModelCard(card_of(HUB, [SOURCE, SOURCE, local, benchmark]))
    assert card.data.to_dict() == {
        "base_model": "owner/Model-1B",
        "base_model_relation": "finetune",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "datasets": ["owner/rows"],
        "tags": ["regrow", "full-fine-tuning", "sft"],
    }
    assert "| `owner/benchmark` | `a.parquet` | comparison: its rows are not trained | `d00d` |" in card.text
    assert "| `rows.jsonl` | `rows.jsonl` | training |" in card.text and "/home" not in card.text and "1,234" in card.text
    assert "# Fine-tuned Model-1B" in card.text and "`c0ffee`" in card.text


def test_an_adapter_says_so() -> None:
    card = ModelCard(card_of(HUB, [], adapter="lora", lora_target_linear=True))
    assert card.data.to_dict()["base_model_relation"] == "adapter" and card.data.library_name == "peft"
    assert "lora" in card.data.tags and "- peft " in card.text


def test_what_is_not_on_the_hub_is_no_link() -> None:
    base = {"source": "pypi:llm-x==1.0/x/Model.gguf#sha256=00", "revision": None, "model_type": "llama"}
    card = ModelCard(card_of(base, [SOURCE | {"revision": None}]))
    assert "base_model" not in card.data.to_dict() and "datasets" not in card.data.to_dict()
    assert "# Fine-tuned Model.gguf" in card.text and "pypi:llm-x==1.0" in card.text


def test_options_are_told_where_they_differ_and_folders_are_not() -> None:
    text = card_of(HUB, [], weight_decay=0.1, seed=42, adapter="lora", lora_model_dir="/home/me/adapter", lora_target_modules=["a|b"])
    told = text.partition("```yaml\n")[2].partition("```")[0].splitlines()
    assert told == [
        "adapter: lora",
        "learning_rate: 0.001",
        "lora_model_dir: adapter",
        "lora_target_modules:",
        "- a|b",
        "weight_decay: 0.1",
    ]


@pytest.mark.parametrize("options", [FULL, LORA], ids=["full", "lora"])
def test_the_card_of_a_run(workspace: Path, options: dict[str, Any]) -> None:
    trained, metrics = train(workspace, options | {"max_steps": 1})
    text = (trained.path / "README.md").read_text(encoding="utf-8")
    inputs = json.loads((trained.path / "manifest.json").read_text())["inputs"]
    assert all(digest in text for digest in inputs.values() if digest != inputs["packed"])
    packed = json.loads((workspace / "data/packed/manifest.json").read_text())
    assert packed["content"]["content_digest"]["train"] in text
    assert f"| loss | `{metrics['loss']}` |" in text and str(workspace) not in text and "max_steps: 1" in text
    assert ModelCard(text).data.library_name == ("peft" if "adapter" in options else "transformers")

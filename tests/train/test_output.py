"""What data/trained holds, and that the same inputs make the same bytes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.bins import Bins
from pipeline.tokens import TokenTable
from tests.train.workspace import FULL, LORA, Heard, finished, read_log, train

TOKENIZER = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}


def test_full_training_writes_a_plain_model_folder(workspace: Path) -> None:
    trained, metrics = train(workspace, FULL | {"num_epochs": 10, "learning_rate": 1e-2})
    assert set(trained.files) == TOKENIZER | {"config.json", "generation_config.json", "model.safetensors", "log.csv", "README.md"}
    assert (metrics["kind"], metrics["precision"], metrics["steps"], metrics["epochs"]) == ("full", "fp32", 20, 10)
    assert trained.content == metrics | {"order": {"seed": 42, "bins_per_step": 4, "steps_per_epoch": 2}}
    log = read_log(trained)
    assert log[-1]["loss"] == pytest.approx(metrics["loss"], rel=1e-5)
    assert log[-1]["loss"] < 0.7 * log[0]["loss"]


def test_a_full_model_keeps_the_settings_of_its_base(workspace: Path) -> None:
    generation = workspace / "data" / "base" / "generation_config.json"
    trained, _ = train(workspace, {"max_steps": 1})
    assert json.loads((trained.path / "config.json").read_text())["use_cache"] is True
    assert (trained.path / "generation_config.json").read_bytes() == generation.read_bytes()
    assert (trained.path / "tokenizer.json").read_bytes() == (workspace / "data" / "tokenizer" / "tokenizer.json").read_bytes()


def test_lora_writes_an_adapter_for_data_base(workspace: Path) -> None:
    trained, metrics = train(workspace, LORA | {"peft_use_rslora": True, "peft_use_dora": True, "max_steps": 1})
    assert set(trained.files) == TOKENIZER | {"adapter_config.json", "adapter_model.safetensors", "log.csv", "README.md"}
    text = (trained.path / "adapter_config.json").read_text()
    config = json.loads(text)
    assert metrics["kind"] == "adapter"
    assert config["base_model_name_or_path"] == "data/base"
    assert (config["r"], config["lora_dropout"], config["use_rslora"], config["use_dora"]) == (4, 0.2, True, True)
    assert config["target_modules"] == sorted(config["target_modules"])
    assert str(workspace) not in text


@pytest.mark.parametrize("options", [FULL, LORA], ids=["full", "lora"])
def test_the_same_inputs_make_the_same_bytes(published: Path, workspace: Path, options: dict[str, object]) -> None:
    assert train(workspace, options)[0].files == finished(published, options).files
    assert train(workspace, options | {"seed": 7})[0].files["log.csv"] != finished(published, options).files["log.csv"]


def test_the_log_counts_tokens_of_the_rows_that_were_seen(workspace: Path) -> None:
    """Whole epochs have seen every token so many times, whatever the order."""
    trained, metrics = train(workspace, FULL)
    tokens = TokenTable(workspace / "data" / "tokens")
    total = int(tokens.lengths.sum())
    labels = sum(int(tokens.mask(row)[1:].sum()) for row in range(len(tokens)))
    log = read_log(trained)
    assert [line["step"] for line in log] == [1, 2, 3, 4, 5, 6]
    assert [line["epoch"] for line in log] == [0.5, 1, 1.5, 2, 2.5, 3]
    assert [line["tokens"] for line in log][1::2] == [total, 2 * total, 3 * total]
    assert [line["trained_tokens"] for line in log][1::2] == [labels, 2 * labels, 3 * labels]
    assert (metrics["tokens"], metrics["trained_tokens"]) == (3 * total, 3 * labels)
    assert 0 < log[0]["tokens"] < total


@pytest.mark.shows("logging_steps")
def test_log_lines_average_the_steps_between_them(published: Path, workspace: Path) -> None:
    every = [line["loss"] for line in finished(published, FULL).log]
    coarse = read_log(train(workspace, FULL | {"logging_steps": 4})[0])
    assert [line["step"] for line in coarse] == [4, 6]
    assert coarse[0]["loss"] == pytest.approx(sum(every[:4]) / 4, rel=1e-5)
    assert coarse[1]["loss"] == pytest.approx(sum(every[4:]) / 2, rel=1e-5)


def test_progress_counts_steps_and_tokens(workspace: Path) -> None:
    heard = Heard()
    _, metrics = train(workspace, FULL, progress=heard)
    (task,) = heard.tasks
    assert (task.name, task.total, task.done, task.unit) == ("train", 6, 6, "steps")
    assert task.tokens == metrics["tokens"]
    assert task.note.startswith("loss ")
    assert heard.said == []


def test_nothing_of_a_finished_run_stays_in_scratch(workspace: Path) -> None:
    train(workspace, FULL)
    assert not (workspace / ".regrow" / "train").exists()
    assert len(Bins.load(workspace / "data" / "packed" / "train.arrow")) == 8

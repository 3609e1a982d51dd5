"""Inputs that do not fit each other end in one clear message, before anything is trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pipeline.errors import RegrowError
from tests.tiny import publish_artifact, publish_bins, publish_tokens, save_model
from tests.train.workspace import FULL, LORA, Heard, build, make_rows, train


def test_tokens_other_than_those_packed_are_refused(workspace: Path) -> None:
    """Same lengths, one other token: only the content digest can tell."""
    rows = make_rows(16)
    rows[3][0][1] += 1 if rows[3][0][1] < 258 else -1
    shutil.rmtree(workspace / "data" / "tokens")
    publish_tokens(workspace / "data", rows)
    with pytest.raises(RegrowError, match="does not fit") as caught:
        train(workspace, FULL)
    assert "dvc repro" in str(caught.value)
    assert not (workspace / "data" / "trained").exists()


def test_a_mask_other_than_the_packed_one_is_refused(workspace: Path) -> None:
    rows = make_rows(16)
    rows[5][1][0] = 1 - rows[5][1][0]
    publish_tokens(workspace / "data", rows)
    with pytest.raises(RegrowError, match="does not fit"):
        train(workspace, FULL)


@pytest.mark.parametrize("bins", [[], [[0]]])
def test_nothing_to_train_is_refused(tmp_path: Path, bins: list[list[int]]) -> None:
    """No bins, and a bin whose only trained token has nothing before it."""
    workspace = build(tmp_path, [([5, 6], [1, 0])], [[0]])
    publish_bins(workspace / "data", bins)
    with pytest.raises(RegrowError, match="no token to train"):
        train(workspace, {})


def test_a_tokenizer_with_more_ids_than_the_model_is_refused(workspace: Path) -> None:
    publish_artifact(workspace / "data", "base", lambda folder: save_model(folder, vocab_size=100))
    with pytest.raises(RegrowError, match="embeddings for ids 0 to 99"):
        train(workspace, FULL)


def test_rows_longer_than_the_model_was_made_for_are_mentioned(workspace: Path) -> None:
    publish_artifact(workspace / "data", "base", lambda folder: save_model(folder, max_position_embeddings=8))
    heard = Heard()
    train(workspace, {"max_steps": 1}, progress=heard)
    assert len(heard.said) == 1
    assert "sequence_len: 8" in heard.said[0]


def test_a_loss_that_is_no_number_ends_the_run(workspace: Path) -> None:
    with pytest.raises(RegrowError, match=r"The (loss|norm of the gradient) is (nan|inf) at step \d") as caught:
        train(workspace, FULL | {"optimizer": "sgd", "learning_rate": 1e30, "max_grad_norm": 0, "warmup_steps": 0})
    assert "learning_rate (now 1e+30)" in str(caught.value)
    assert not (workspace / "data" / "trained").exists()


def test_a_base_that_is_no_model_is_refused(workspace: Path) -> None:
    publish_artifact(workspace / "data", "base", lambda folder: (folder / "config.json").write_text("{}"))
    with pytest.raises(RegrowError, match="cannot be opened"):
        train(workspace, FULL)


def test_a_base_whose_weights_are_another_models_is_refused(workspace: Path) -> None:
    """transformers would train from random weights."""

    def fill(folder: Path) -> None:
        save_model(folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 96, "num_hidden_layers": 3}))

    publish_artifact(workspace / "data", "base", fill)
    with pytest.raises(RegrowError, match=r"do not fill the LlamaForCausalLM.* 9 missing \(model\.layers\.2.* 6 of another shape"):
        train(workspace, FULL)


def test_an_adapter_on_the_embeddings_trains(workspace: Path) -> None:
    trained, _ = train(workspace, LORA | {"lora_target_linear": False, "lora_target_modules": ["embed_tokens", "q_proj"], "max_steps": 1})
    assert "adapter_model.safetensors" in trained.files


def test_every_named_module_must_be_there(workspace: Path) -> None:
    with pytest.raises(RegrowError, match=r"lora_target_modules: .*has no module 'nope'\.\n.*down_proj.*q_proj"):
        train(workspace, LORA | {"lora_target_linear": False, "lora_target_modules": ["q_proj", "layers.0.self_attn.k_proj", "nope"]})

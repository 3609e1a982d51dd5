"""Every kind of adapter that train makes: the merged model computes what the model computed that was trained."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from stages.merge import STAGE
from stages.train.output.folder import write_model
from tests.merge.adapters import logits, peft_model
from tests.tiny import publish_artifact, run_stage, save_model, save_tokenizer
from tests.train.workspace import FULL, pairs, train

LORA: dict[str, Any] = FULL | {"adapter": "lora", "lora_r": 4, "learning_rate": 1e-2, "max_steps": 2}
ALL: dict[str, Any] = {"lora_target_linear": True}
SOME: dict[str, Any] = {"lora_target_modules": ["q_proj"]}
BOTH = ["embed_tokens", "lm_head"]
KINDS: dict[str, dict[str, Any]] = {
    **{f"begins as {name}": ALL | {"peft_init_lora_weights": name} for name in (True, "orthogonal", "eva")},
    **{f"begins as {name}": ALL | {"peft_init_lora_weights": name} for name in ("pissa", "pissa_niter_2", "olora", "corda", "lora_ga")},
    "begins as loftq": ALL | {"peft": {"loftq_config": {"loftq_bits": 2}}},
    "pissa, rslora, patterns": ALL
    | {"peft_init_lora_weights": "pissa", "peft_use_rslora": True, "lora_rank_pattern": {"q_proj": 2}, "lora_alpha_pattern": {"o_proj": 3}},
    "pissa, dora": ALL | {"peft_init_lora_weights": "pissa", "peft_use_dora": True},
    "olora beside a whole module": ALL | {"peft_init_lora_weights": "olora", "lora_modules_to_save": ["norm"]},
    "layers repeated": ALL | {"peft_layer_replication": [[0, 2], [1, 2]]},
    "ends kept apart": SOME | {"lora_modules_to_save": BOTH},
    "embedding kept, tied": SOME | {"lora_modules_to_save": ["embed_tokens"], "peft_ensure_weight_tying": True},
    "ends adapted, tied": {"lora_target_modules": ["q_proj", *BOTH], "peft_ensure_weight_tying": True},
    "ends adapted apart": {"lora_target_modules": ["q_proj", *BOTH]},
    "token rows": SOME | {"peft_trainable_token_indices": [40, 41]},
    "a parameter": SOME | {"lora_target_parameters": "mlp.up_proj.weight"},
    "relora": ALL | {"relora": True, "jagged_restart_steps": 1, "jagged_restart_warmup_steps": 0, "jagged_restart_anneal_steps": 0},
}
NEW: dict[str, dict[str, Any]] = {
    "ends kept": SOME | {"lora_modules_to_save": BOTH},
    "embedding kept, tied": SOME | {"lora_modules_to_save": ["embed_tokens"], "peft_ensure_weight_tying": True},
    "token rows": SOME | {"peft_trainable_token_indices": [259, 260]},
    "token rows, rounded up": SOME | {"peft_trainable_token_indices": [259, 260], "resize_token_embeddings_to_32x": True},
}


@pytest.fixture(scope="module", autouse=True)
def _few_objects_to_collect() -> None:
    """accelerate collects garbage at the start of every run: 0.4 s each over all that the libraries' import left, 0 without."""
    import peft.tuners.lora  # noqa: F401

    import stages.train.session  # noqa: F401

    gc.freeze()


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = pairs(tmp_path_factory.mktemp("published"))
    publish_artifact(workspace / "data", "others", lambda folder: None, sources=[])
    return workspace


@pytest.fixture
def workspace(published: Path, tmp_path: Path) -> Path:
    shutil.copytree(published / "data", tmp_path / "data")
    return tmp_path


@pytest.fixture
def trained_logits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[torch.Tensor]]:
    """What the model in memory computes just before it is written."""
    found: list[torch.Tensor] = []

    def watched(model: Any, *arguments: Any) -> None:
        found.append(logits(model.eval()))
        write_model(model, *arguments)

    monkeypatch.setattr("stages.train.session.write_model", watched)
    yield found


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
@pytest.mark.parametrize("kind", KINDS)
def test_what_was_trained_is_what_is_merged(workspace: Path, trained_logits: list[torch.Tensor], kind: str) -> None:
    trained, _ = train(workspace, LORA | KINDS[kind])
    outputs, _ = run_stage(STAGE, workspace)
    merged = AutoModelForCausalLM.from_pretrained(outputs["merged"].path)
    torch.testing.assert_close(logits(merged), trained_logits[0], atol=3e-6, rtol=1e-4)
    assert not torch.allclose(logits(merged), logits(AutoModelForCausalLM.from_pretrained(workspace / "data" / "base")), atol=1e-4)
    if trained.content["kind"] == "adapter":
        torch.testing.assert_close(logits(peft_model(workspace)), trained_logits[0], atol=3e-6, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
@pytest.mark.parametrize("kind", NEW)
def test_new_tokens_reach_the_merged_model(workspace: Path, trained_logits: list[torch.Tensor], kind: str) -> None:
    publish_artifact(workspace / "data", "tokenizer", save_tokenizer, vocab_size=261, new_tokens=["<a>", "<b>"], pad_token="<|endoftext|>")
    train(workspace, LORA | NEW[kind])
    outputs, _ = run_stage(STAGE, workspace)
    merged: Any = AutoModelForCausalLM.from_pretrained(outputs["merged"].path)
    assert merged.config.vocab_size == len(merged.get_input_embeddings().weight) == (288 if "rounded" in kind else 261)
    torch.testing.assert_close(logits(merged), trained_logits[0], atol=3e-6, rtol=1e-4)


@pytest.mark.parametrize("tied", [True, False])
def test_a_vocabulary_that_shrinks_under_an_adapter(workspace: Path, trained_logits: list[torch.Tensor], tied: bool) -> None:
    publish_artifact(workspace / "data", "base", lambda folder: save_model(folder, vocab_size=320, tie_word_embeddings=tied))
    publish_artifact(workspace / "data", "tokenizer", save_tokenizer, vocab_size=259)
    train(workspace, LORA | ALL | {"shrink_embeddings": True})
    outputs, _ = run_stage(STAGE, workspace)
    merged: Any = AutoModelForCausalLM.from_pretrained(outputs["merged"].path)
    assert merged.config.vocab_size == 259 and outputs["merged"].content["tensors"] == (20 if tied else 21)
    torch.testing.assert_close(logits(merged), trained_logits[0], atol=3e-6, rtol=1e-4)

"""The embedding follows the tokenizer: new tokens get rows, other tokenizers and adapters do not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pipeline.errors import RegrowError
from tests.tiny import publish_artifact, save_model, save_tokenizer
from tests.train.workspace import FULL, LORA, train

ONCE = FULL | {"max_steps": 1}


def tokenizer_with(workspace: Path, *new: str, pad: str = "<|endoftext|>") -> None:
    """What fetch writes for a tokenizer with ``new`` tokens; the model stays as it is."""

    def fill(folder: Path) -> None:
        from transformers import PreTrainedTokenizerFast

        save_tokenizer(folder)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        tokenizer.add_tokens(list(new))
        tokenizer.pad_token = pad
        tokenizer.save_pretrained(folder)

    publish_artifact(workspace / "data", "tokenizer", fill, vocab_size=259 + len(new), new_tokens=list(new), pad_token=pad)


def embedding_of(folder: Path) -> torch.Tensor:
    return load_file(folder / "model.safetensors")["model.embed_tokens.weight"]


def rows_after(workspace: Path, **options: Any) -> tuple[int, torch.Tensor]:
    """Rows that config.json states, and the embedding."""
    trained, _ = train(workspace, ONCE | options)
    config = json.loads((trained.path / "config.json").read_text())
    return int(config["vocab_size"]), embedding_of(trained.path)


@pytest.mark.shows("resize_token_embeddings_to_32x")
@pytest.mark.parametrize(("options", "rows"), [({}, 261), ({"resize_token_embeddings_to_32x": True}, 288)])
def test_new_tokens_get_rows(workspace: Path, options: dict[str, Any], rows: int) -> None:
    before = embedding_of(workspace / "data" / "base")
    tokenizer_with(workspace, "<a>", "<b>")
    stated, embedding = rows_after(workspace, learning_rate=1e-30, **options)
    assert stated == len(embedding) == rows
    assert torch.allclose(embedding[:259], before, rtol=0, atol=1e-20)
    assert embedding[259:].std() > 0


@pytest.mark.shows("mean_resizing_embeddings")
def test_new_rows_may_start_at_the_mean(workspace: Path) -> None:
    mean = embedding_of(workspace / "data" / "base").mean(0)
    tokenizer_with(workspace, "<a>")
    _, near = rows_after(workspace, learning_rate=1e-30, mean_resizing_embeddings=True)
    assert torch.allclose(near[259], mean, atol=1e-3)


@pytest.mark.shows("shrink_embeddings")
def test_embeddings_shrink_only_when_asked_to(workspace: Path) -> None:
    publish_artifact(workspace / "data", "base", lambda folder: save_model(folder, vocab_size=320))
    tokenizer_with(workspace)
    assert rows_after(workspace)[0] == 320
    assert rows_after(workspace, shrink_embeddings=True)[0] == 259


def test_an_adapter_must_train_new_tokens(workspace: Path) -> None:
    tokenizer_with(workspace, "<a>", "<b>", "<p>", pad="<p>")
    tied = r"new tokens \(<a>, <b>\), whose rows in embed_tokens and lm_head.*\n.*\[embed_tokens, lm_head\].*: \[259, 260\].*overrides"
    for trained in ({}, {"lora_modules_to_save": ["norm"]}, {"peft_trainable_token_indices": [259]}):
        with pytest.raises(RegrowError, match=tied):
            train(workspace, LORA | {"max_steps": 1} | trained)


def test_an_adapter_must_train_new_tokens_at_both_ends(workspace: Path) -> None:
    publish_artifact(workspace / "data", "base", lambda folder: save_model(folder, tie_word_embeddings=False))
    tokenizer_with(workspace, "<a>", "<b>")
    for trained in ({"lora_modules_to_save": ["embed_tokens"]}, {"peft_trainable_token_indices": [259, 260]}):
        with pytest.raises(RegrowError, match=r"rows in lm_head an.*\n.*\{embed_tokens: \[259, 260\], lm_head: \[259, 260\]\}"):
            train(workspace, LORA | {"max_steps": 1} | trained)
    train(workspace, LORA | {"max_steps": 1, "peft_trainable_token_indices": {"embed_tokens": [259, 260], "lm_head": [259, 260]}})


def test_a_new_row_for_padding_goes_into_the_adapter(workspace: Path) -> None:
    """Nothing trains it, but the model that was trained has it."""
    tokenizer_with(workspace, "<p>", pad="<p>")
    trained, _ = train(workspace, LORA | {"max_steps": 1})
    tensors = load_file(trained.path / "adapter_model.safetensors")
    ends = {name: tensor for name, tensor in tensors.items() if "lora_" not in name}
    assert [len(tensor) for tensor in ends.values()] == [260, 260]

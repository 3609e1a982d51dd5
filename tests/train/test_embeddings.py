"""The embedding follows the tokenizer: new tokens get rows, other tokenizers and adapters do not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

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
    from safetensors.torch import load_file

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


def test_an_adapter_cannot_have_new_tokens(workspace: Path) -> None:
    tokenizer_with(workspace, "<a>", "<b>", "<p>", pad="<p>")
    with pytest.raises(RegrowError, match=r"new tokens \(<a>, <b>\).*\n.*added_tokens_overrides"):
        train(workspace, LORA | {"max_steps": 1})


def test_an_adapter_cannot_have_a_new_row_for_padding(workspace: Path) -> None:
    tokenizer_with(workspace, "<p>", pad="<p>")
    with pytest.raises(RegrowError, match=r"padding token '<p>' needs a row.*\n.*special_tokens\.pad_token"):
        train(workspace, LORA | {"max_steps": 1})

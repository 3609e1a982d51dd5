"""One tiny model, made once, in both forms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from tests.fetch.made import link, make_gguf, write


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """config.json, generation_config.json, model.safetensors and a tokenizer."""
    folder = tmp_path_factory.mktemp("model")
    tiny.save_model(folder)
    tiny.save_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_llama() -> Any:
    """A random model whose vocabulary fits the tests' GGUF tokenizer (262 tokens), in dimensions that blocks of 32 divide."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(7)
    sizes: dict[str, Any] = {"vocab_size": 262, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    heads: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 384}
    return LlamaForCausalLM(LlamaConfig(**sizes, **heads, tie_word_embeddings=True))


@pytest.fixture(scope="session")
def gguf_file(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Any) -> Path:
    return make_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", tiny_llama)


@pytest.fixture
def workspace(tmp_path: Path, model_folder: Path) -> Path:
    """A project whose base model and one dataset are linked."""
    folder = tmp_path / "project"
    link(folder, "base", model_folder)
    link(folder, "train-00", write(tmp_path / "elsewhere" / "rows.jsonl"))
    return folder

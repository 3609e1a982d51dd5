"""Rows and models to measure with on any machine: nothing is downloaded, and nothing but torch and transformers is needed."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import numpy as np

SHAPES: dict[str, dict[str, int]] = {
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8},
    "3b": {"hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28, "num_attention_heads": 24, "num_key_value_heads": 8},
    "8b": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8},
    "tiny": {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2},
}
"""Llama 3's, and one that a CPU trains in no time."""

VOCABULARY = {"tiny": 512}
"""Tokens; Llama 3's 128,256 otherwise."""


def vocabulary(shape: str) -> int:
    """Tokens of a shape."""
    return VOCABULARY.get(shape, 128_256)


def rows(folder: Path, shape: str, tokens: int, longest: int) -> float:
    """``folder/data`` with random tokens in rows like short conversations, and a tokenizer of as many tokens.

    Returns:
        How many tokens the row of a token has, on average over all tokens.
    """
    from pipeline.artifact import Draft, publish, seal
    from pipeline.tokens import TokenWriter, id_dtype

    draw, count, lengths = random.Random(0), vocabulary(shape), []
    numbers = np.random.default_rng(0)
    draft = Draft("tokens", folder / "data" / ".partial" / "tokens")
    draft.path.mkdir(parents=True)
    with TokenWriter(draft.path, id_dtype(count)) as writer:
        while sum(lengths) < tokens:
            length = min(longest, max(16, int(math.exp(draw.gauss(math.log(longest / 14), 0.7)))))
            mask = np.ones(length, np.int64)
            mask[: int(length * draw.uniform(0.1, 0.4))] = 0
            writer.add(numbers.integers(3, count, length), mask, 0, len(lengths))
            lengths.append(length)
    source = {
        "name": "train-00",
        "split": "train",
        "path": "rows.jsonl",
        "file": "rows.jsonl",
        "rows": len(lengths),
        "type": "chat_template",
    }
    draft.describe(sources=[source], rows=len(lengths), tokens=sum(lengths))
    seal(draft, {})
    publish(draft, folder / "data" / "tokens")
    draft = Draft("tokenizer", folder / "data" / ".partial" / "tokenizer")
    draft.path.mkdir(parents=True)
    _save_tokenizer(draft.path, count)
    seal(draft, {})
    publish(draft, folder / "data" / "tokenizer")
    return sum(length**2 for length in lengths) / sum(lengths)


def _save_tokenizer(folder: Path, tokens: int) -> None:
    """Words that are numbers: nothing is tokenized, but trainers want to know what pads."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": 0, "<s>": 1, "</s>": 2} | {str(number): number for number in range(3, tokens)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>").save_pretrained(folder)


def model(folder: Path, shape: str, dtype: str = "bfloat16", **overrides: Any) -> int:
    """The artifact of a random model of a shape, made on the GPU if there is one; its parameters without the input embedding."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from pipeline.artifact import Draft, publish, seal

    torch.manual_seed(0)
    settings: dict[str, Any] = SHAPES[shape] | {"vocab_size": vocabulary(shape), "max_position_embeddings": 8192} | overrides
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        made: Any = LlamaForCausalLM(LlamaConfig(**settings, tie_word_embeddings=False, pad_token_id=0, bos_token_id=1, eos_token_id=2))
    torch.set_default_dtype(before)
    draft = Draft(folder.name, folder.parent / ".partial" / folder.name)
    draft.path.mkdir(parents=True)
    made.save_pretrained(draft.path)
    seal(draft, {})
    publish(draft, folder)
    return sum(parameter.numel() for parameter in made.parameters()) - int(made.get_input_embeddings().weight.numel())

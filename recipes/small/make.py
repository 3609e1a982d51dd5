"""Makes the model, the tokenizer and the rows of this folder: python -m recipes.small.make

The model is random and knows nothing. It is here so that all eight stages can be run in seconds, without a download.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
_CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
_FRUIT = ["apples", "pears", "plums", "figs", "limes", "dates"]
_NAMES = ["Ada", "Bo", "Cleo", "Dan", "Eva", "Finn"]


def rows() -> Iterator[dict[str, Any]]:
    """Who has more? 96 questions whose answer is yes or no, the first four twice, which dedupe has to find."""
    chance = random.Random(1)
    made = []
    for _ in range(96):
        (one, other), fruit = chance.sample(_NAMES, 2), chance.choice(_FRUIT)
        left, right = chance.sample(range(1, 30), 2)
        question = f"{one} has {left} {fruit} and {other} has {right}. Has {one} more?"
        answer = {"role": "assistant", "content": "yes" if left > right else "no"}
        made.append({"messages": [{"role": "user", "content": question}, answer]})
    yield from made + made[:4]


def write_rows(path: Path) -> None:
    """One row a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows()), encoding="utf-8")


def write_tokenizer(folder: Path) -> None:
    """Byte-level BPE with 384 tokens, learned from the rows."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    texts = [message["content"] for row in rows() for message in row["messages"]]
    special = [AddedToken(token, special=True) for token in _SPECIAL]
    trainer = trainers.BpeTrainer(vocab_size=384, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = _CHATML
    fast.save_pretrained(folder)


def write_model(folder: Path) -> None:
    """A random Llama of two layers and 32 dimensions: 30,848 parameters, fp32."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=384,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


if __name__ == "__main__":
    write_rows(FOLDER / "rows.jsonl")
    write_tokenizer(FOLDER / "model")
    write_model(FOLDER / "model")

"""A tiny random model, a byte-level tokenizer and hand-made artifacts: what the tests of single stages start from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.artifact import Artifact, Draft, publish, seal
from pipeline.bins import Bins
from pipeline.options.views import RecipeOptions
from pipeline.progress import Progress
from pipeline.runner import execute
from pipeline.stage import Metrics, Stage
from pipeline.tokens import TokenTable, TokenWriter, id_dtype

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def save_tokenizer(folder: Path, chat_template: str = CHATML) -> None:
    """A byte-level tokenizer without merges: 256 bytes and three special tokens, ids 0..258."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(models.BPE({token: index for index, token in enumerate([*special, *alphabet])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = chat_template
    fast.save_pretrained(folder)


def save_model(folder: Path, seed: int = 0, **overrides: Any) -> None:
    """A random two-layer Llama of 64 dimensions with tied embeddings, about 120k parameters, fp32 safetensors."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    settings: dict[str, Any] = {
        "vocab_size": 259,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    LlamaForCausalLM(LlamaConfig(**(settings | overrides))).save_pretrained(folder)


def publish_artifact(data: Path, name: str, fill: Any, **content: Any) -> Artifact:
    """Make ``data/name`` by hand: ``fill(folder)`` writes its files."""
    draft = Draft(name, data / ".partial" / name)
    draft.path.mkdir(parents=True)
    fill(draft.path)
    draft.describe(**content)
    artifact = seal(draft, {})
    publish(draft, data / name)
    return Artifact(name, data / name, artifact.content, artifact.files, artifact.inputs)


def publish_tokens(
    data: Path, rows: Sequence[tuple[Sequence[int], Sequence[int]]], vocab_size: int = 259, kind: str = "chat_template"
) -> Artifact:
    """``data/tokens`` of one training source, of dataset type ``kind``, from (ids, mask) pairs."""

    def fill(folder: Path) -> None:
        with TokenWriter(folder, id_dtype(vocab_size)) as writer:
            for number, (ids, mask) in enumerate(rows):
                writer.add(np.asarray(ids), np.asarray(mask), 0, number)

    source = {"name": "train-00", "split": "train", "path": "rows.jsonl", "file": "rows.jsonl", "rows": len(rows), "type": kind}
    return publish_artifact(data, "tokens", fill, sources=[source], rows=len(rows), tokens=sum(len(ids) for ids, _ in rows))


def publish_bins(data: Path, train: Sequence[Sequence[int]], evaluation: Sequence[Sequence[int]] = ()) -> Artifact:
    """``data/packed`` from whole rows: each inner list is a bin of token-table rows. Needs ``data/tokens``."""
    tokens = TokenTable(data / "tokens")

    def plan(bins: Sequence[Sequence[int]]) -> Bins:
        rows = np.asarray([row for rows in bins for row in rows], np.int64)
        offsets = np.cumsum([0, *(len(rows) for rows in bins)])
        return Bins(offsets, rows, np.zeros(len(rows), np.int32), tokens.longest[rows].astype(np.int32))

    plans = {"train": plan(train), "eval": plan(evaluation)}

    def fill(folder: Path) -> None:
        for split, bins in plans.items():
            bins.save(folder / f"{split}.arrow")

    digests = {split: bins.content_digest(tokens) for split, bins in plans.items()}
    return publish_artifact(data, "packed", fill, content_digest=digests, sequence_len=max(1, int(tokens.lengths.max(initial=1))) * 4)


MINIMAL = {"base_model": "./base", "datasets": [{"path": "rows.jsonl", "type": "chat_template"}], "learning_rate": 1e-3}


def run_stage(stage: Stage, workspace: Path, options: Mapping[str, Any] = {}, **keywords: Any) -> tuple[Mapping[str, Artifact], Metrics]:
    """Run one stage on ``workspace/data`` with a minimal recipe and ``options`` on top, without DVC."""
    recipe = RecipeOptions.model_validate(MINIMAL | dict(options))
    view = stage.options.model_validate(recipe.model_dump())
    defaults: dict[str, Any] = {
        "data": workspace / "data",
        "scratch": workspace / ".regrow" / stage.name,
        "sources": workspace / "data" / "sources",
        "identity": "test",
        "code": "test",
        "cache": workspace / ".regrow" / "cache" / stage.name,
        "progress": Progress(),
    }
    return execute(stage, view, **(defaults | keywords))

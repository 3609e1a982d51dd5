"""Merged models for the tests of quantize: four architectures, tokenizers that cut text in different ways, rows to calibrate with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.models.auto.configuration_auto import AutoConfig

from pipeline.artifact import Artifact
from stages.quantize import STAGE
from tests.tiny import CHATML, publish_artifact, publish_bins, publish_tokens, run_stage, save_model

TEXT = "Regrow 12 tails in 3 days, don't wait: 2024's axolotls won't.  Two  spaces, tab\tand\nlines\n\n1. élan vital 42x7 (naïve)! "
ROWS = 400
"""Rows of the embedding; the tokenizers have fewer tokens."""

QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CUTS: dict[str, Callable[[], Any]] = {
    "gpt-2": lambda: pre_tokenizers.ByteLevel(add_prefix_space=False),
    "smollm": lambda: pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=False)]),
    "qwen2": lambda: split(QWEN2),
    "llama-bpe": lambda: split(QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")),
    "nobody's": lambda: split(r"\s+|\S"),
}


def split(pattern: str) -> Any:
    """A regular expression in front of byte-level tokens."""
    return pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )


def save_bpe(folder: Path, cut: str = "smollm") -> None:
    """A byte-level BPE of about 350 tokens, learned from ``TEXT`` with the pre-tokenizer ``cut``."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = CUTS[cut]()
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=350,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT] * 3, trainer)
    tokenizer.add_tokens([AddedToken("<think>", normalized=False, special=False)])
    special = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    fast: Any = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)  # type: ignore[no-untyped-call]
    fast.chat_template = CHATML
    fast.save_pretrained(folder)


def save_llama(folder: Path, dtype: torch.dtype = torch.float32, shard: str = "1GB", **overrides: Any) -> None:
    """A tiny Llama of ``ROWS`` tokens in ``dtype``, in files of ``shard``."""
    save_model(folder, **({"vocab_size": ROWS} | overrides))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size=shard)


def save_any(folder: Path, model_type: str, **settings: Any) -> None:
    """A tiny random model of another type."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": ROWS, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    heads: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128}
    config = AutoConfig.for_model(model_type, **(sizes | heads | settings))
    model: Any = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    for name, parameter in model.named_parameters():
        if name.endswith(("bias", "norm.weight")):
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)


def publish_merged(workspace: Path, save: Callable[[Path], None] = save_llama, cut: str = "smollm") -> Artifact:
    """``data/merged``: a model and its tokenizer; and the rows it was trained on."""
    publish_rows(workspace)

    def fill(folder: Path) -> None:
        save(folder)
        save_bpe(folder, cut)

    return publish_artifact(workspace / "data", "merged", fill, kind="full")


def publish_rows(workspace: Path) -> None:
    """``data/tokens`` and ``data/packed``: twenty rows of which the first sixteen are trained."""
    rows = [([(7 * row + 3 * token) % 250 + 3 for token in range(10 + row)], [1] * (10 + row)) for row in range(20)]
    publish_tokens(workspace / "data", rows)
    publish_bins(workspace / "data", [[row, row + 1] for row in range(0, 16, 2)], [[16, 17], [18, 19]])


def quantize(workspace: Path, *entries: Any, **options: Any) -> tuple[Path, dict[str, Any]]:
    """Run the stage on ``workspace``; data/quantized and what the stage says."""
    outputs, metrics = run_stage(STAGE, workspace, {"quantize": list(entries)} | options)
    return outputs["quantized"].path, metrics


def answer(model: Any) -> list[int]:
    """Eight tokens that the model writes after three, whichever are likeliest."""
    with torch.no_grad():
        written = model.generate(torch.tensor([[1, 40, 50]]), max_new_tokens=8, min_new_tokens=8, do_sample=False)
    return [int(token) for token in written[0, 3:]]


def logits(model: Any) -> torch.Tensor:
    """Logits of a fixed row, float32 ``[1, 40, vocabulary]``."""
    with torch.no_grad():
        result: torch.Tensor = model(torch.arange(40)[None] * 7 % 259).logits.float()
    return result

"""Bases and peft adapters for the tests of merge, and what peft itself makes of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GptOssConfig,
    GptOssForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
)

from pipeline.artifact import Artifact
from tests.tiny import publish_artifact, publish_bins, publish_tokens, save_model, save_tokenizer

Fill = Callable[[Path], None]

SMALL: dict[str, Any] = {
    "vocab_size": 259,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "eos_token_id": 2,
}


def llama(dtype: torch.dtype = torch.float32, shard: str = "1GB", **overrides: Any) -> Fill:
    """A tiny Llama, stored in ``dtype`` and in files of ``shard``."""

    def fill(folder: Path) -> None:
        save_model(folder, **overrides)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
        (folder / "model.safetensors").unlink()
        model.save_pretrained(folder, max_shard_size=shard)

    return fill


def gpt2(dtype: torch.dtype = torch.float32) -> Fill:
    """A tiny GPT-2: its linear layers store ``[in, out]``, and one is square."""

    def fill(folder: Path) -> None:
        torch.manual_seed(0)
        model: Any = GPT2LMHeadModel(GPT2Config(vocab_size=259, n_embd=64, n_layer=2, n_head=4, n_positions=64))
        model.to(dtype).save_pretrained(folder)

    return fill


def gpt_oss(dtype: torch.dtype = torch.float32) -> Fill:
    """A tiny mixture of experts, which its files hold as stacks of ``[in, out]`` matrices."""

    def fill(folder: Path) -> None:
        torch.manual_seed(0)
        model: Any = GptOssForCausalLM(GptOssConfig(**SMALL, head_dim=16, num_local_experts=4))
        model.to(dtype).save_pretrained(folder)

    return fill


def mixtral(dtype: torch.dtype = torch.float32) -> Fill:
    """A tiny mixture of experts, which its files hold one expert at a time."""

    def fill(folder: Path) -> None:
        torch.manual_seed(0)
        model: Any = MixtralForCausalLM(MixtralConfig(**SMALL, num_local_experts=4))
        model.to(dtype).save_pretrained(folder)

    return fill


def publish_base(workspace: Path, fill: Fill) -> Artifact:
    """``data/base``, a ``data/others`` without any, and rows: four that are trained and two that are held out."""
    publish_tokens(
        workspace / "data", [([3 + (7 * row + 11 * token) % 256 for token in range(6 + 9 * row)], [1] * (6 + 9 * row)) for row in range(6)]
    )
    publish_bins(workspace / "data", [[0, 1], [2, 3]], [[4], [5]])
    publish_artifact(workspace / "data", "others", lambda folder: None, sources=[])
    return publish_artifact(workspace / "data", "base", fill)


def publish_adapter(workspace: Path, edit: Callable[[Path], None] | None = None, rows: int | None = None, **settings: Any) -> None:
    """``data/trained`` with a random adapter on ``data/base``, resized to ``rows`` tokens: every factor differs from zero."""
    base = workspace / "data" / "base"

    def fill(folder: Path) -> None:
        torch.manual_seed(1)
        model = AutoModelForCausalLM.from_pretrained(base)
        if rows:
            model.resize_token_embeddings(rows)
        defaults: dict[str, Any] = {"task_type": "CAUSAL_LM", "init_lora_weights": False}
        adapted: Any = get_peft_model(model, LoraConfig(**(defaults | settings)))
        for name, parameter in adapted.named_parameters():
            if (parameter.requires_grad and "lora_" not in name) or "magnitude" in name:
                parameter.data.add_(0.1 * torch.randn_like(parameter))
        adapted.save_pretrained(folder)
        (folder / "README.md").unlink()  # train writes another one
        if rows:
            _drop_copies(folder / "adapter_model.safetensors")
        save_tokenizer(folder)
        (folder / "log.csv").write_text("step,loss\n")
        if edit:
            edit(folder)

    publish_artifact(workspace / "data", "trained", fill, kind="adapter")


def _drop_copies(file: Path) -> None:
    """What peft saves twice, as train leaves it out."""
    tensors = load_file(file)
    save_file({name: tensor for name, tensor in tensors.items() if not {"original_module", "modules_to_save"} & {*name.split(".")}}, file)


def peft_model(workspace: Path, rows: int | None = None, dtype: torch.dtype | None = None) -> Any:
    """The adapter on its base, as peft loads it; not merged."""
    base = AutoModelForCausalLM.from_pretrained(workspace / "data" / "base", **({} if dtype is None else {"dtype": dtype}))
    if rows:
        base.resize_token_embeddings(rows)
    return PeftModel.from_pretrained(base, str(workspace / "data" / "trained")).eval()


def edit_config(**changes: Any) -> Callable[[Path], None]:
    """Change settings in a saved adapter_config.json."""

    def edit(folder: Path) -> None:
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


def edit_tensors(put: Mapping[str, torch.Tensor], drop: Sequence[str] = ()) -> Callable[[Path], None]:
    """Put tensors into a saved adapter and take others out, by their names without ``base_model.model.model.``."""

    def edit(folder: Path) -> None:
        tensors = load_file(folder / "adapter_model.safetensors")
        tensors |= {name if name.startswith("model.") else f"base_model.model.model.{name}": tensor for name, tensor in put.items()}
        kept = {name: tensor for name, tensor in tensors.items() if name.removeprefix("base_model.model.model.") not in drop}
        save_file(kept, folder / "adapter_model.safetensors")

    return edit


def stored_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a folder's model files."""
    tensors: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("model*.safetensors")):
        tensors |= load_file(path)
    return tensors


def logits(model: Any) -> torch.Tensor:
    """Logits of a fixed row, float32 ``[1, 24, vocabulary]``."""
    with torch.no_grad():
        result: torch.Tensor = model(torch.arange(24)[None]).logits.float()
    return result

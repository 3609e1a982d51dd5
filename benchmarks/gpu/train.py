"""train beside TRL's SFTTrainer on one GPU: Llama-shaped random models in bfloat16, tokens per second, memory and MFU.

    python benchmarks/gpu/train.py [--shapes 1b 3b 8b] [--tokenizer data/tokenizer] [--sequence-len 4096] [--peak-tflops 989] [--save]

MFU is model FLOPs over the time and the GPU's dense bfloat16 peak (989 TFLOP/s for an H100 or H200). Model FLOPs of a token are
6 P + 12 L d s: P parameters without the input embedding, L layers of width d, s tokens of the sequence (Chowdhery et al. 2022,
arXiv 2204.02311, appendix B). What is computed a second time, or left out because a token is not trained, does not change the count.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parent.parent.parent)

from benchmarks import measuring  # noqa: E402
from benchmarks import train as cpu  # noqa: E402

SHAPES: dict[str, dict[str, int]] = {
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8},
    "3b": {"hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28, "num_attention_heads": 24, "num_key_value_heads": 8},
    "8b": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8},
}
"""Llama 3's, with the vocabulary of the tokenizer at hand."""


def main() -> None:
    """Make models and rows, measure, print."""
    import torch

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--tokenizer", type=Path, default=Path("data/tokenizer"))
    parser.add_argument("--sequence-len", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--peak-tflops", type=float, default=989.0, help="dense bfloat16 peak of this GPU")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/gpu-train.md")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("this measurement needs a CUDA GPU; benchmarks/train.py measures on a CPU")
    with tempfile.TemporaryDirectory() as folder:
        measuring.publish(_report(arguments, Path(folder)), "gpu-train" if arguments.save else None)


def _report(arguments: argparse.Namespace, folder: Path) -> Iterator[str]:
    import torch

    yield measuring.heading("train on a GPU, beside TRL", ("torch", "transformers", "trl", "accelerate"))
    yield f"\n{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"
    steps = arguments.steps + cpu.WARM_UP
    prepared, length = folder / "prepared", arguments.sequence_len
    rows = (steps + 1) * length // 200
    cpu.measure("prepare", tokenizer=str(arguments.tokenizer.resolve()), folder=str(prepared), rows=rows)
    for shape in arguments.shapes:
        model = folder / shape
        flops = make_model(model, shape, arguments.tokenizer, length)
        shared = {"model": str(model), "prepared": str(prepared), "length": length, "steps": steps, "workspace": str(folder)}
        ours = {"bf16": "full", "gradient_checkpointing": True}
        theirs = {"bf16": True, "gradient_checkpointing": True}
        measured = {
            "regrow": cpu.measure("regrow", **shared, options=ours),
            "TRL, packing (bfd)": cpu.measure("trl", **shared, config=theirs, lora=False, dtype="bfloat16", attn_implementation="sdpa"),
        }
        yield f"\n## {shape}, full fine-tuning in bfloat16, one bin of {length} tokens a step, {arguments.steps} steps\n"
        yield from cpu.compare(measured)
        for name, result in measured.items():
            share = flops * result["tokens"] / result["wall"] / arguments.peak_tflops / 1e12
            yield f"\n{name}: MFU {share:.1%}, peak GPU memory {result['gpu_mb']:,} MB."


def make_model(folder: Path, shape: str, tokenizer: Path, length: int) -> float:
    """A random model of a shape in ``folder``, on the GPU and in bfloat16; returns the model FLOPs of a trained token."""
    import torch
    from tokenizers import Tokenizer
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    vocabulary = Tokenizer.from_file(str(tokenizer / "tokenizer.json")).get_vocab_size(with_added_tokens=True)
    settings: dict[str, Any] = SHAPES[shape] | {"vocab_size": vocabulary, "max_position_embeddings": 8192, "tie_word_embeddings": False}
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model: Any = LlamaForCausalLM(LlamaConfig(**settings))
    torch.set_default_dtype(before)
    model.save_pretrained(folder)
    parameters = sum(parameter.numel() for parameter in model.parameters()) - model.get_input_embeddings().weight.numel()
    del model
    torch.cuda.empty_cache()
    return float(6 * parameters + 12 * settings["num_hidden_layers"] * settings["hidden_size"] * length)


if __name__ == "__main__":
    main()

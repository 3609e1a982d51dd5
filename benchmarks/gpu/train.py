"""train beside TRL's SFTTrainer on one GPU: full fine-tuning of Llama-shaped random models in bfloat16, the best of either.

    python benchmarks/gpu/train.py [--shapes 8b] [--sequence-len 4096] [--bins 4] [--steps 6] [--peak-tflops 989] [--save]
    python benchmarks/gpu/train.py --smoke

Both get the same rows and --bins full bins to an optimizer step, and each is measured in several settings, one process each; a
setting that fails or finds no memory is a row that says so. Run benchmarks/gpu/check.py first: speed says nothing of what is learnt.

MFU is model FLOPs over the time and the GPU's dense bfloat16 peak (989 TFLOP/s for an H100 or H200). Model FLOPs of a token are
6 P + 6 L d s: P parameters without the input embedding, L layers of width d, s tokens of its own row (Chowdhery et al. 2022, arXiv
2204.02311, appendix B, for attention that is causal and ends at the row's borders). What is computed a second time, or for other
rows of the bin, does not count; neither does it that the output head is left out where nothing is trained.

What to expect of one H200 at 8b (8.0e9 parameters, 2 bytes each): weights, gradients and AdamW's two states are 64 GB of 139 GiB.
Activations of a bin of 4,096 tokens without recomputation are about 32 GB (30 numbers of the width per token and layer), the logits of
128,256 tokens up to 6 GB: it fits, two bins at once do not. Products of 16,384 tokens are 0.77 PFLOP, 0.98 s at the 790 TFLOP/s that
a plain product reaches there; recomputation adds a third. AdamW and the gradient's norm move about 160 GB, 40 ms at 4.3 TB/s: 4 % of a
step of four bins, 14 % of a step of one, which is why a step has four. 50 % MFU is a step of 1.56 s.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parent.parent.parent)

from benchmarks import measuring  # noqa: E402
from benchmarks import train as cpu  # noqa: E402
from benchmarks.gpu import material  # noqa: E402
from benchmarks.gpu.older_torch import forget_fewer_heads  # noqa: E402
from benchmarks.measuring import Result  # noqa: E402

_STARTED = time.monotonic()
LIMIT = 120
"""Seconds that one setting may take."""

OURS: dict[str, dict[str, Any]] = {
    "compiled": {"torch_compile": True},
    "eager": {},
    "compiled, recomputation": {"torch_compile": True, "gradient_checkpointing": True},
}
THEIRS: dict[str, dict[str, Any]] = {
    "liger kernels, flash-attn": {"use_liger_kernel": True, "attention": "flash_attention_2"},
    "flash-attn": {"attention": "flash_attention_2"},
    "liger kernels": {"use_liger_kernel": True},
    "sdpa": {},
    "sdpa, compiled": {"torch_compile": True},
    "liger kernels, recomputation": {"use_liger_kernel": True, "gradient_checkpointing": True},
}
"""Settings of either side, the most promising first. With recomputation all bins of a step are one micro-batch, otherwise each is."""

_NEEDS = {"use_liger_kernel": "liger_kernel", "attention": "flash_attn"}


def main() -> None:
    """Make models and rows, measure, print."""
    import torch

    parser = measuring.program(__doc__)
    parser.add_argument("--shapes", nargs="+", choices=material.SHAPES, default=["8b"])
    parser.add_argument("--sequence-len", type=int, default=4096)
    parser.add_argument("--bins", type=int, default=4, help="of an optimizer step")
    parser.add_argument("--steps", type=int, default=6, help="that count")
    parser.add_argument("--peak-tflops", type=float, default=989.0, help="dense bfloat16 peak of this GPU")
    parser.add_argument("--budget", type=float, default=360.0, help="seconds after which no other setting begins")
    parser.add_argument("--smoke", action="store_true", help="tiny shapes and one setting of each, also on a CPU: does it run?")
    arguments = measuring.parse(parser, "gpu-train", MEASURES)
    if arguments is None:
        return
    if arguments.smoke:
        arguments.shapes, arguments.sequence_len, arguments.bins, arguments.steps = ["tiny"], 128, 2, 2
    elif not torch.cuda.is_available():
        parser.error("this measurement needs a CUDA GPU; benchmarks/train.py measures on a CPU, and --smoke runs anywhere")
    with tempfile.TemporaryDirectory() as folder:
        measuring.publish(_report(arguments, Path(folder)), arguments.save_as)


def _report(arguments: argparse.Namespace, folder: Path) -> Iterator[str]:
    import torch

    yield measuring.heading(
        "train on a GPU, beside TRL", _installed("torch", "transformers", "trl", "accelerate", "liger-kernel", "flash-attn")
    )
    yield f"\n{torch.cuda.get_device_name() if torch.cuda.is_available() else 'no GPU'}, CUDA {torch.version.cuda}"
    for shape in arguments.shapes:
        yield f"\n## {shape}, full fine-tuning in bfloat16, {arguments.bins} bins of {arguments.sequence_len} tokens a step\n"
        yield from _of_shape(arguments, folder / shape, shape)


def _of_shape(arguments: argparse.Namespace, folder: Path, shape: str) -> Iterator[str]:
    folder.mkdir()
    steps = arguments.steps + cpu.WARM_UP
    tokens = (steps + 1) * arguments.bins * arguments.sequence_len * 11 // 10
    made = attempt("prepare", None, folder=str(folder), shape=shape, tokens=tokens, longest=arguments.sequence_len)
    if "failed" in made:
        yield f"No model and rows to measure with: {made['failed']}"
        return
    size = material.SHAPES[shape]
    flops = 6 * made["parameters"] + 6 * size["num_hidden_layers"] * size["hidden_size"] * made["row"]
    shared = {"model": str(folder / "base"), "prepared": str(folder), "length": arguments.sequence_len, "steps": steps}
    shared |= {"workspace": str(folder), "bins": arguments.bins}
    yield "| | setting | tokens/s | MFU | peak GPU memory, MB | trained |\n|---|---|---|---|---|---|"
    speeds: dict[str, float] = {}
    for side, name, setting in _settings(smoke=arguments.smoke):
        left = arguments.budget - (time.monotonic() - _STARTED)
        result = (
            attempt(side, min(LIMIT, left), setting=setting, smoke=arguments.smoke, **shared) if left > 0 else {"failed": "no time left"}
        )
        if "failed" in result:
            yield f"| {side} | {name} | {result['failed']} | | | |"
            continue
        speed = result["tokens"] / result["wall"]
        speeds[side] = max(speed, speeds.get(side, 0.0))
        share, memory = flops * speed / arguments.peak_tflops / 1e12, result["gpu_mb"] or 0
        yield f"| {side} | {name} | {speed:,.0f} | {share:.1%} | {memory:,} | {result['trained'] / result['tokens']:.0%} |"
    if len(speeds) == 2 and not arguments.smoke:
        yield f"\nThe best of regrow is {speeds['regrow'] / speeds['TRL']:.2f} x the best of TRL."


def _settings(*, smoke: bool) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Both sides in turn, so that each has something to show when time is up. A smoke test runs one of each, and sees one missing."""
    few = ("compiled", "liger kernels, flash-attn", "sdpa")
    for own, other in zip_longest(OURS.items(), THEIRS.items()):
        for side, named in (("regrow", own), ("TRL", other)):
            if named is not None and (not smoke or named[0] in few):
                yield side, *named


def attempt(name: str, limit: float | None, **settings: Any) -> Result:
    """A measurement in a process of its own, or why there is none."""
    try:
        return measuring.measure(__file__, name, threads=8, limit=limit, **settings)
    except subprocess.TimeoutExpired:
        return {"failed": f"not done after {limit:g} s"}
    except subprocess.CalledProcessError as error:
        return {"failed": f"exit code {error.returncode}"}


def surviving(measurement: Callable[..., Result]) -> Callable[..., Result]:
    """What it fails with becomes its result."""

    def survived(**settings: Any) -> Result:
        try:
            return measurement(**settings)
        except Exception as error:
            return {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:160]}".replace("|", "/")}

    return survived


def prepare(folder: str, shape: str, tokens: int, longest: int) -> Result:
    """Rows and a model; what its FLOPs follow from."""
    row = material.rows(Path(folder), shape, tokens, longest)
    return {"row": row, "parameters": material.model(Path(folder) / "base", shape)}


def regrow(setting: dict[str, Any], smoke: bool, bins: int, **shared: Any) -> Result:
    """Our pack and train stages."""
    forget_fewer_heads()
    options = {"bf16": "full", "optimizer": "adamw_torch_fused"} | setting | _batches(setting, bins, "micro_batch_size")
    if smoke and "torch_compile" in options:
        options["torch_compile_backend"] = "eager"
    return cpu.regrow(**shared, options=options, whole=False)


def trl(setting: dict[str, Any], smoke: bool, bins: int, **shared: Any) -> Result:
    """TRL's trainer on weights in bfloat16, as ours."""
    for key, package in _NEEDS.items():
        if key in setting and find_spec(package) is None:
            return {"failed": f"{package} is not installed"}
    config = {"bf16": False, "optim": "adamw_torch_fused", "use_cpu": smoke} | _batches(setting, bins, "per_device_train_batch_size")
    config |= {key: value for key, value in setting.items() if key != "attention"}
    return cpu.trl(**shared, config=config, lora=False, dtype="bfloat16", attn_implementation=setting.get("attention", "sdpa"))


def _batches(setting: dict[str, Any], bins: int, key: str) -> dict[str, int]:
    together = bins if setting.get("gradient_checkpointing") else 1
    return {key: together, "gradient_accumulation_steps": bins // together}


def _installed(*packages: str) -> list[str]:
    return [package for package in packages if find_spec(package.replace("-", "_")) is not None]


MEASURES: dict[str, Callable[..., Result]] = {"prepare": surviving(prepare), "regrow": surviving(regrow), "TRL": surviving(trl)}


if __name__ == "__main__":
    main()

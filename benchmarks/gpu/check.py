"""Is what train does on this device right? To be run before speed is measured; prints a table, and ends with 1 if a check fails.

    python benchmarks/gpu/check.py [--smoke]

A norm is that of the difference to fp32 over that of fp32's gradients, ``|g - r| / |r|``, of a random Llama with fewer heads of keys
and rows packed into one bin; fp32 computes each row alone. Runs are of the train stage, on a model of two layers, in this process.
--smoke: smaller, and on a CPU too, where kernels and levers of a GPU are left out.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parent.parent.parent)

from benchmarks import train as cpu  # noqa: E402
from benchmarks.gpu import material  # noqa: E402
from benchmarks.gpu.older_torch import forget_fewer_heads  # noqa: E402

Check = Callable[[], str]
"""What was seen; an AssertionError says what was seen instead."""

LENGTHS = [37, 200, 64, 5, 130, 76]
NORMS = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 4e-2}
"""The largest norm that rounding explains: 8 bits of precision in bfloat16, 11 in float16, and a few layers."""
LORA = {"adapter": "lora", "lora_r": 4, "lora_alpha": 8, "lora_dropout": 0.1, "lora_target_linear": True}
STEPS = 6
_LOOSE = {"torch_compile", "attn_implementation"}
"""With them a GPU's attention has another order of additions in every run, and the run record says so."""


def main() -> None:
    """Check one thing after the other."""
    import torch

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--smoke", action="store_true", help="also without a GPU")
    arguments = parser.parse_args()
    if not arguments.smoke and not torch.cuda.is_available():
        parser.error("these checks need a CUDA GPU; --smoke runs anywhere")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # as train sets it where it is the first to use the GPU
    forget_fewer_heads()
    with tempfile.TemporaryDirectory() as folder:
        failed = list(_report({**_kernels(), **_stage_checks(Path(folder))}))
    print(f"\n{len(failed)} checks failed{': ' + ', '.join(failed) if failed else ''}.")
    sys.exit(bool(failed))


def _report(checks: Mapping[str, Check]) -> Iterator[str]:
    """Print a row for each check; yield those that failed."""
    print("| check | | seen | seconds |\n|---|---|---|---|")
    for name, check in checks.items():
        began = time.monotonic()
        try:
            verdict, seen = "ok", check()
        except Exception as error:  # what a check fails with is what this program is to show
            verdict, seen = "FAILED", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            yield name
        print(f"| {name} | {verdict} | {seen} | {time.monotonic() - began:.1f} |", flush=True)


def device() -> str:
    """Where it is computed."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _kernels() -> dict[str, Check]:
    numbers = [("bfloat16", "bfloat16"), ("float32", "bfloat16"), ("float32", "float32")]
    numbers += [("float32", "float16"), ("float16", "float16")] if device() == "cuda" else []
    window: dict[str, Check] = {"gradients, a window of 50 tokens, bfloat16": partial(_gradients, "bfloat16", "bfloat16", 50)}
    return {
        f"gradients, {weights} weights, {products} products": partial(_gradients, weights, products) for weights, products in numbers
    } | window


def _gradients(weights: str, products: str, window: int | None = None) -> str:
    """Loss and gradients of a packed bin by documents, and of sdpa row by row in the same numbers, both beside fp32 row by row."""
    import torch

    reference = _learnt(_model("float32", window), "sdpa", "float32", together=False)
    packed = _learnt(_model(weights, window), "varlen", products, together=True)
    alone = _learnt(_model(weights, window), "sdpa", products, together=False)
    norms = [float((found[1] - reference[1]).norm() / reference[1].norm()) for found in (packed, alone)]
    losses = [abs(found[0] - reference[0]) / abs(reference[0]) for found in (packed, alone)]
    seen = f"norm {norms[0]:.1e} (sdpa row by row {norms[1]:.1e}), loss off by {losses[0]:.1e} ({losses[1]:.1e})"
    assert norms[0] <= NORMS[products] and norms[0] <= 2 * norms[1] + 1e-6 and losses[0] <= NORMS[products], seen
    assert torch.isfinite(packed[1]).all()
    return seen


def _model(dtype: str, window: int | None) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    size: dict[str, Any] = {"vocab_size": 1000, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 3}
    size |= {"num_attention_heads": 4, "num_key_value_heads": 2, "attn_implementation": "sdpa"}
    kind: Any = LlamaForCausalLM if window is None else MistralForCausalLM
    config: Any = LlamaConfig(**size) if window is None else MistralConfig(**size, sliding_window=window)
    return kind(config).to(getattr(torch, dtype)).to(device()).train()


def _learnt(model: Any, attention: str, products: str, *, together: bool) -> tuple[float, Any]:
    """(mean loss, gradients of all weights as one fp32 vector)."""
    import torch
    from torch.nn import functional

    from stages.train.attention import varlen

    varlen.register()
    model.set_attn_implementation(attention)
    generator = torch.Generator().manual_seed(1)
    rows = [torch.randint(0, 1000, (length,), generator=generator) for length in LENGTHS]
    kind = getattr(torch, products)
    under = torch.autocast(device(), kind) if model.dtype is not kind else nullcontext()
    total = torch.zeros((), device=device())
    for batch in [rows] if together else [[row] for row in rows]:
        ids = torch.cat(batch)[None].to(device())
        place = torch.cat([torch.arange(len(row)) for row in batch])[None].to(device())
        labels = torch.cat([functional.pad(row[1:], (0, 1), value=-100) for row in batch]).to(device())
        with under:
            logits = model(input_ids=ids, position_ids=place, use_cache=False).logits
        total = total + functional.cross_entropy(logits[0].float(), labels, reduction="sum")
    mean = total / sum(length - 1 for length in LENGTHS)
    torch.autograd.backward(mean)
    return float(mean.detach()), torch.cat([weight.grad.float().flatten() for weight in model.parameters()])


def _stage_checks(folder: Path) -> dict[str, Check]:
    """Checks of whole runs, on rows and a model that are made when the first of them runs."""
    runs = Runs(folder)
    found: dict[str, Check] = {}
    for kind, options in (("full", {"bf16": "full"}), ("LoRA", LORA | {"bf16": True})):
        found[f"{kind}: two runs"] = partial(_same_bytes, runs, options)
        found[f"{kind}: stopped after step 3 and resumed"] = partial(_resumed, runs, options)
    levers: dict[str, dict[str, Any]] = {
        "gradient_checkpointing": {"gradient_checkpointing": True},
        "chunked_cross_entropy": {"chunked_cross_entropy": True},
        "tiled_mlp": {"tiled_mlp": True, "tiled_mlp_num_shards": 2},
        "activation_offloading: disk": {"activation_offloading": "disk"},
        "attn_implementation: sdpa": {"attn_implementation": "sdpa"},
        "torch_compile": {"torch_compile": True} | ({} if device() == "cuda" else {"torch_compile_backend": "eager"}),
    }
    if device() == "cuda":
        levers |= {"activation_offloading: true": {"activation_offloading": True}, "legacy": {"activation_offloading": "legacy"}}
        levers |= {"bfloat16 autocast": {"bf16": True}, "float16 autocast": {"bf16": False, "fp16": True}}
    found |= {f"the same losses, {name}": partial(_same_losses, runs, options) for name, options in levers.items()}
    return found | {"what the profiler writes": partial(_profiled, runs)}


class Runs:
    """Runs of the train stage, each kept by its options."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept: dict[str, Path] = {}

    def kept(self, options: Mapping[str, Any]) -> Path:
        """The folder of a run with these options, made once."""
        key = str(sorted(options.items()))
        if key not in self._kept:
            self._kept[key] = self.run(options)
        return self._kept[key]

    def run(self, options: Mapping[str, Any], stop: int | None = None) -> Path:
        """A new run; with ``stop`` asked to end in that step and started again."""
        from pipeline.errors import Interrupted

        place, observed = self._lay_out(), dict[str, Any]()
        recipe = cpu.RECIPE | {"sequence_len": 256, "max_steps": STEPS, "gradient_accumulation_steps": 2, "save_steps": STEPS, **options}
        cpu.run_stage("pack", place, recipe, _progress(None))
        if stop is not None:
            try:
                cpu.run_stage("train", place, recipe, _progress(stop))
            except Interrupted:
                pass
            else:
                raise AssertionError("it was asked to stop, and did not")
        cpu.run_stage("train", place, recipe, _progress(None), observed)
        promised = observed["determinism"]
        assert promised["level"] or _LOOSE & options.keys(), f"determinism: {promised['prevented']}"
        return place

    def _lay_out(self) -> Path:
        made = self._folder / "made"
        if not made.exists():
            made.mkdir()
            material.rows(made, "tiny", 40 * 256, 256)
            material.model(made / "base", "tiny", "float32")
        return cpu.lay_out(made / "base", made, self._folder)


def _progress(stop: int | None) -> Any:
    """Nothing is shown; in the step ``stop`` this process is asked to end."""
    from pipeline.progress import Progress, Task

    class Quiet(Progress):
        def say(self, message: str) -> None:
            """Nothing."""

        @contextmanager
        def task(self, name: str, *, total: int | None = None, unit: str = "rows") -> Iterator[Task]:
            class Watched(Task):
                def advance(self, count: int = 1, *, tokens: int = 0, note: str | None = None) -> None:
                    super().advance(count, tokens=tokens, note=note)
                    if name == "train" and count and self.done == stop:
                        os.kill(os.getpid(), signal.SIGTERM)

            yield Watched(name, total, unit)

    return Quiet()


def _digests(place: Path) -> dict[str, Any]:
    from pipeline.artifact import open_artifact

    return dict(open_artifact(place / "data" / "trained").files)


def _same_bytes(runs: Runs, options: Mapping[str, Any]) -> str:
    first, second = _digests(runs.kept(options)), _digests(runs.run(options))
    assert first == second, f"differ: {[name for name in first if first[name] != second.get(name)]}"
    return f"{len(first)} files are the same bytes"


def _resumed(runs: Runs, options: Mapping[str, Any]) -> str:
    first, second = _digests(runs.kept(options)), _digests(runs.run(options, stop=3))
    assert first == second, f"differ: {[name for name in first if first[name] != second.get(name)]}"
    return f"{len(first)} files are the same bytes"


def _losses(place: Path) -> list[float]:
    header, *lines = (place / "data" / "trained" / "log.csv").read_text(encoding="utf-8").splitlines()
    column = header.split(",").index("loss")
    return [float(line.split(",")[column]) for line in lines]


def _same_losses(runs: Runs, options: Mapping[str, Any]) -> str:
    plain = {"bf16": "full"}
    expected, found = _losses(runs.kept(plain)), _losses(runs.run(plain | options))
    off = max(abs(one - other) / one for one, other in zip(found, expected, strict=True))
    assert off <= NORMS["bfloat16"], f"off by {off:.1e}: {found}, {expected}"
    return f"{len(found)} steps, off by at most {off:.1e}"


def _profiled(runs: Runs) -> str:
    place = runs.run({"bf16": "full", "profiler_steps": 2, "profiler_steps_start": 1})
    written = sorted((place / "data" / "metrics").rglob("profile-*"))
    suffix = ".pickle" if device() == "cuda" else ".json"
    assert [path.suffix for path in written] == [suffix] and written[0].stat().st_size > 1000, [str(path) for path in written]
    return f"{written[0].name}, {written[0].stat().st_size:,} bytes"


if __name__ == "__main__":
    main()

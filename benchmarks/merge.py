"""merge beside peft's `merge_and_unload`: peak memory, seconds, and whether they write the same numbers.

    python benchmarks/merge.py [--layers 16] [--folder DIR] [--save]

The model is random and shaped like Llama 3.2 1B: bfloat16, tied, in five files; its adapter is LoRA of rank 16 on all linear layers. It
takes 10 GB in --folder. Every measurement is a process of its own. Memory, in MB of 2**20 bytes, is what Linux calls VmHWM, the most that
was resident: pages of mapped files count, which the system may take away again, so the most anonymous memory (RssAnon, looked at every
10 ms) is beside it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Not the folder of this file, in which a module is called tokenize like one of Python's own.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import measuring  # noqa: E402
from benchmarks.measuring import Result, timed  # noqa: E402

RANK = 16
SHAPE: dict[str, Any] = {
    "vocab_size": 128256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "tie_word_embeddings": True,
}
FILE_MB = 530
WAYS = {
    "regrow, parity_rows: 0": ("stage", {"parity_rows": 0}),
    "regrow, parity_rows: 4 (the default)": ("stage", {"parity_rows": 4}),
    "peft": ("peft", {}),
}


def main() -> None:
    """Make the model, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--folder", type=Path, help="for 10 GB of models, removed at the end; default: the system's temporary folder")
    parser.add_argument("--note", default="", help="a sentence about the circumstances, for the report")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/merge.md")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--settings", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(MEASURES[arguments.measure](**json.loads(arguments.settings))))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        measuring.publish(_report(Path(folder), arguments.layers, arguments.note), "merge" if arguments.save else None)


def _report(folder: Path, layers: int, note: str) -> Iterator[str]:
    made = measuring.measure(__file__, "make", folder=str(folder), layers=layers)
    yield measuring.heading("merge: an adapter into its base", ("torch", "transformers", "peft"))
    yield f"\n{note}" if note else ""
    yield (
        f"\n{made['parameters']:,} parameters in bfloat16, {made['bytes'] / 1e9:.2f} GB in {made['files']} files, the largest tensor "
        f"{made['largest'] / 1e6:,.0f} MB; LoRA of rank {RANK} on all linear layers, {made['adapter'] / 1e6:,.0f} MB. regrow is the whole "
        "stage: it also verifies the digests of what it reads and computes those of what it writes. peft: `from_pretrained`, "
        "`merge_and_unload`, `save_pretrained`.\n"
    )
    yield "| | peak MB (VmHWM) | of it anonymous | wall s | CPU s |\n|---|---|---|---|---|"
    found = {}
    for name, (measure, settings) in WAYS.items():
        found[name] = measuring.measure(__file__, measure, folder=str(folder), **settings)
        cells = (f"{found[name][key]:,.0f}" for key in ("peak_mb", "anonymous_mb", "wall", "cpu"))
        yield f"| {name} | {' | '.join(cells)} |"
    without, checked, theirs = (way["peak_mb"] for way in found.values())
    yield f"\npeft's peak is {theirs / checked:.1f} times regrow's, {theirs / without:.1f} times that without parity."
    same = measuring.measure(__file__, "compare", folder=str(folder))
    yield f"\n{same['equal']} of {same['tensors']} tensors are equal to the last bit ({same['changed']} of them changed by the adapter)."
    differences = found["regrow, parity_rows: 4 (the default)"]["parity"]
    before, stored = differences["exact"], differences["rounded"]
    yield f"Largest difference of logits over their size: {before:.1e} before rounding, {stored:.1e} as stored."


def _config(layers: int) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(**SHAPE, num_hidden_layers=layers, dtype="bfloat16", architectures=["LlamaForCausalLM"])


def _make(folder: str, layers: int) -> Result:
    """data/base, data/trained, data/tokens and data/packed, a tensor at a time."""
    from pipeline.artifact import Draft, publish, seal

    data, made = Path(folder) / "data", dict[str, Any]()
    for name, fill in FILLS.items():
        draft = Draft(name, data / ".partial" / name, {"kind": "adapter"} if name == "trained" else {})
        draft.path.mkdir(parents=True)
        made |= fill(draft.path, layers)
        seal(draft, {})
        publish(draft, data / name)
    return made


def _fill_base(folder: Path, layers: int) -> Result:
    import torch
    from transformers import LlamaForCausalLM

    from pipeline.progress import Task
    from stages.merge.checkpoint import Form
    from stages.merge.shards import write_files

    config = _config(layers)
    with torch.device("meta"):
        parameters = dict(LlamaForCausalLM(config).named_parameters())
    forms = {name: Form(torch.bfloat16, tuple(parameters[name].shape)) for name in sorted(parameters)}
    order = {name: number for number, name in enumerate(forms)}

    def draw(name: str) -> torch.Tensor:
        seeded, shape = torch.Generator().manual_seed(order[name]), forms[name].shape
        if len(shape) == 1:
            return torch.ones(shape, dtype=torch.bfloat16)
        return torch.empty(shape, dtype=torch.bfloat16).normal_(0, 0.02, generator=seeded)

    files = write_files(folder, forms, FILE_MB * 1_000_000, draw, Task("", None, ""))
    config.save_pretrained(folder)
    sizes = [form.nbytes for form in forms.values()]
    return {"parameters": sum(sizes) // 2, "bytes": sum(sizes), "files": len(files), "largest": max(sizes)}


def _fill_adapter(folder: Path, layers: int) -> Result:
    import torch
    from peft import LoraConfig
    from safetensors.torch import save_file

    linear = {
        **{f"self_attn.{name}_proj": (2048, width) for name, width in (("q", 2048), ("k", 512), ("v", 512), ("o", 2048))},
        **{"mlp.gate_proj": (2048, 8192), "mlp.up_proj": (2048, 8192), "mlp.down_proj": (8192, 2048)},
    }
    seeded, tensors = torch.Generator().manual_seed(0), {}
    for layer in range(layers):
        for name, (inside, outside) in linear.items():
            place = f"base_model.model.model.layers.{layer}.{name}"
            tensors[f"{place}.lora_A.weight"] = torch.randn(RANK, inside, generator=seeded) / inside**0.5
            tensors[f"{place}.lora_B.weight"] = torch.randn(outside, RANK, generator=seeded) * 0.02
    targets = sorted(name.rpartition(".")[2] for name in linear)
    LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=targets, task_type="CAUSAL_LM").save_pretrained(folder)  # type: ignore[arg-type]
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return {"adapter": sum(tensor.nbytes for tensor in tensors.values())}


def _fill_tokens(folder: Path, layers: int) -> Result:
    import numpy as np

    from pipeline.tokens import TokenWriter, id_dtype

    random = np.random.Generator(np.random.PCG64(0))
    with TokenWriter(folder, id_dtype(SHAPE["vocab_size"])) as writer:
        for row in range(4):
            writer.add(random.integers(0, SHAPE["vocab_size"], 64), np.ones(64), 0, row)
    return {}


def _fill_packed(folder: Path, layers: int) -> Result:
    import numpy as np

    from pipeline.bins import Bins

    rows = np.arange(4)
    for name, count in (("train", 0), ("eval", 4)):
        lengths = np.full(count, 64, np.int32)
        Bins(np.arange(count + 1), rows[:count], np.zeros(count, np.int32), lengths).save(folder / f"{name}.arrow")
    return {}


@contextmanager
def _watched(result: Result) -> Iterator[None]:
    """Puts the largest anonymous memory, in MB of 2**20 bytes, into ``result``."""
    done, largest = threading.Event(), [0]

    def watch() -> None:
        while not done.is_set():
            status = Path("/proc/self/status").read_text(encoding="utf-8")
            largest[0] = max(largest[0], int(status.partition("RssAnon:")[2].split()[0]))
            time.sleep(0.01)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        result["anonymous_mb"] = largest[0] // 1024


def _stage(folder: str, parity_rows: int) -> Result:
    """The whole stage, imports included."""

    def work() -> Result:
        result: Result = {}
        with _watched(result):
            result["parity"] = _run_stage(Path(folder), parity_rows)
        return result

    return timed(work)


def _run_stage(folder: Path, parity_rows: int) -> Result:
    from pipeline.options.views import MergeOptions
    from pipeline.progress import Progress
    from pipeline.runner import execute
    from stages.merge import STAGE

    observed: dict[str, Any] = {}
    scratch = folder / "scratch"
    keywords: dict[str, Any] = {"scratch": scratch, "sources": folder, "identity": "", "code": "", "cache": folder, "observed": observed}
    options = MergeOptions.model_validate({"merge": {"parity_rows": parity_rows, "max_shard_size_mb": FILE_MB}})
    execute(STAGE, options, data=folder / "data", progress=Progress(), **keywords)
    return {name: found["relative"] for name, found in observed.get("parity", {}).items()}


def _peft(folder: str) -> Result:
    def work() -> Result:
        result: Result = {}
        with _watched(result):
            _run_peft(Path(folder))
        return result

    return timed(work)


def _run_peft(folder: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder / "data" / "base", dtype=torch.bfloat16)
    merged: Any = PeftModel.from_pretrained(model, str(folder / "data" / "trained")).merge_and_unload()
    merged.save_pretrained(folder / "peft", max_shard_size=f"{FILE_MB}MB")


def _compare(folder: str) -> Result:
    from stages.merge.checkpoint import Checkpoint

    base, ours, theirs = (Checkpoint(Path(folder) / name) for name in ("data/base", "data/merged", "peft"))
    if ours.shapes.keys() != theirs.shapes.keys():
        raise SystemExit(f"Other tensors: {sorted(ours.shapes.keys() ^ theirs.shapes.keys())[:5]}")
    equal = sum(ours.read(name).equal(theirs.read(name)) for name in ours.shapes)
    changed = sum(not ours.read(name).equal(base.read(name)) for name in ours.shapes)
    shutil.rmtree(Path(folder) / "peft")
    return {"tensors": len(ours.shapes), "equal": equal, "changed": changed}


FILLS: dict[str, Callable[[Path, int], Result]] = {
    "base": _fill_base,
    "trained": _fill_adapter,
    "others": lambda folder, layers: {},
    "tokens": _fill_tokens,
    "packed": _fill_packed,
}
MEASURES: dict[str, Callable[..., Result]] = {"make": _make, "stage": _stage, "peft": _peft, "compare": _compare}

if __name__ == "__main__":
    main()

"""train beside TRL's SFTTrainer: one run, the same rows, model, precision and tokens to a batch; tokens per second and peak memory.

    python benchmarks/train.py [--model data/base] [--tokenizer data/tokenizer] [--sequence-len 2048] [--steps 6] [--save]

Every measurement is a process of its own with as many threads as there are CPUs. The first two steps are warm-up and not
counted. Conversations of about 300 tokens are packed into bins of --sequence-len; only answers are trained.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import corpus, measuring  # noqa: E402
from benchmarks.measuring import Result  # noqa: E402

WARM_UP = 2
"""Steps that are not counted."""
_LORA: dict[str, Any] = {"adapter": "lora", "lora_r": 16, "lora_alpha": 32, "lora_target_linear": True}


def main() -> None:
    """Make the rows, measure, print."""
    parser = measuring.program(__doc__)
    parser.add_argument("--model", type=Path, default=Path("data/base"))
    parser.add_argument("--tokenizer", type=Path, default=Path("data/tokenizer"))
    parser.add_argument("--sequence-len", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=6, help="counted steps of one bin each")
    parser.add_argument("--repeats", type=int, default=1, help="runs of each; medians are reported")
    arguments = measuring.parse(parser, "train", MEASURES)
    if arguments is None:
        return
    measuring.require(parser, "--model", arguments.model, "config.json")
    measuring.require(parser, "--tokenizer", arguments.tokenizer, "tokenizer.json")
    with tempfile.TemporaryDirectory() as folder:
        measuring.publish(_report(arguments, Path(folder)), arguments.save_as)


def _report(arguments: argparse.Namespace, folder: Path) -> Iterator[str]:
    yield measuring.heading("train: tokens per second and memory beside TRL", ("torch", "transformers", "trl", "peft", "accelerate"))
    bins = arguments.steps + WARM_UP + 1
    prepared = folder / "prepared"
    measure("prepare", tokenizer=str(arguments.tokenizer.resolve()), folder=str(prepared), rows=bins * arguments.sequence_len // 200)
    shared = {"model": str(arguments.model.resolve()), "prepared": str(prepared), "length": arguments.sequence_len}
    shared |= {"steps": arguments.steps + WARM_UP, "workspace": str(folder)}
    for kind in ("full", "lora"):
        ours = _median("regrow", arguments.repeats, **shared, options={"bf16": False} | (_LORA if kind == "lora" else {}))
        theirs = _median("trl", arguments.repeats, **shared, config={"bf16": False, "use_cpu": True}, lora=kind == "lora")
        yield f"\n## {kind}, fp32, one bin of {arguments.sequence_len} tokens a step, {arguments.steps} steps\n"
        yield from compare({"regrow": ours, "TRL, packing (bfd)": theirs})


def compare(measured: dict[str, Result]) -> Iterator[str]:
    """A table with the first one's ratio to each."""
    yield "| | tokens/s | regrow is | tokens per CPU second | regrow is | peak MB | trained |\n|---|---|---|---|---|---|---|"
    first = next(iter(measured.values()))
    for name, result in measured.items():
        cells = []
        for time_of in ("wall", "cpu"):
            speed = result["tokens"] / result[time_of]
            cells += [f"{speed:,.0f}", f"{first['tokens'] / first[time_of] / speed:.2f} x"]
        yield f"| {name} | {' | '.join(cells)} | {result['peak_mb']:,} | {result['trained'] / result['tokens']:.0%} of the tokens |"


def _median(way: str, repeats: int, **settings: Any) -> Result:
    results = [measure(way, **settings) for _ in range(repeats)]
    middle = statistics.median_low([result["wall"] / result["tokens"] for result in results])
    return next(result for result in results if result["wall"] / result["tokens"] == middle)


def measure(name: str, **settings: Any) -> Result:
    """Run one of :data:`MEASURES` in a process of its own, with all CPUs."""
    return measuring.measure(__file__, name, threads=os.cpu_count() or 1, **settings)


def prepare(tokenizer: str, folder: str, rows: int) -> Result:
    """data/tokenizer and data/tokens of chats, by our own tokenize stage."""
    from benchmarks.tokenize import regrow as tokenize

    root = Path(folder)
    root.mkdir()
    path = corpus.write(root / "rows.jsonl", corpus.chats(rows, median=6.6))
    result = tokenize(str(path), tokenizer, "chat_template", 1, folder)
    return {"rows": result["rows"]}


class Clock:
    """Wall and CPU time of the steps after the warm-up."""

    def __init__(self) -> None:
        self.ends: list[tuple[float, float, int, int]] = []

    def tick(self, tokens: int, trained: int) -> None:
        """A step has ended in which so many tokens were seen, and so many of them trained."""
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append((time.perf_counter(), measuring.cpu_seconds(), tokens, trained))

    def result(self) -> Result:
        """Of all counted steps together."""
        first, last = self.ends[WARM_UP - 1], self.ends[-1]
        counted = self.ends[WARM_UP:]
        sums = {"tokens": sum(end[2] for end in counted), "trained": sum(end[3] for end in counted)}
        return sums | {"wall": last[0] - first[0], "cpu": last[1] - first[1], "peak_mb": measuring.peak_mb(), "gpu_mb": _gpu_mb()}


def _gpu_mb() -> int | None:
    import torch

    return torch.cuda.max_memory_allocated() // 2**20 if torch.cuda.is_available() else None


class Enough(Exception):
    """All steps that count are done; what follows, writing the model, is not measured."""


def regrow(model: str, prepared: str, length: int, steps: int, workspace: str, options: dict[str, Any], whole: bool = True) -> Result:
    """Our pack and train stages, with these options on top; ``whole``: to the end, and not only to the last step."""
    from collections.abc import Iterator as Iterating
    from contextlib import contextmanager, suppress

    import numpy as np

    from pipeline.progress import Progress, Task
    from pipeline.tokens import TokenTable

    clock = Clock()

    class Timing(Progress):
        @contextmanager
        def task(self, name: str, *, total: int | None = None, unit: str = "rows") -> Iterating[Task]:
            class Timed(Task):
                def advance(self, count: int = 1, *, tokens: int = 0, note: str | None = None) -> None:
                    super().advance(count, tokens=tokens, note=note)
                    if tokens:
                        clock.tick(tokens, 0)
                    if len(clock.ends) == steps and not whole:
                        raise Enough

            yield Timed(name, total, unit)

    place = lay_out(Path(model), Path(prepared), Path(workspace))
    recipe = RECIPE | {"sequence_len": length, "max_steps": steps, "optimizer": "adamw_torch", "save_steps": 10**6, **options}
    run_stage("pack", place, recipe, Timing())
    with suppress(Enough):
        run_stage("train", place, recipe, Timing())
    tokens = TokenTable(place / "data" / "tokens")
    every = np.arange(len(tokens))
    share = tokens.count_trained(every, np.zeros_like(every), tokens.lengths).sum() / tokens.lengths.sum()
    return clock.result() | {"trained": round(share * clock.result()["tokens"])}


RECIPE: dict[str, Any] = {
    "base_model": "./base",
    "learning_rate": 1e-4,
    "datasets": [{"path": "rows.jsonl", "type": "chat_template"}],
    "sample_packing": True,
    "logging_steps": 1,
}
"""What every measured run has in its params.yaml."""


def lay_out(model: Path, prepared: Path, workspace: Path) -> Path:
    """A folder with data/tokens, data/tokenizer, data/dedupe that keeps all rows, and data/base."""
    from pipeline.artifact import Draft, publish, seal
    from pipeline.kept import KeptRows
    from pipeline.tokens import TokenTable

    place = Path(tempfile.mkdtemp(dir=workspace))
    data = place / "data"
    data.mkdir()
    for name in ("tokens", "tokenizer"):
        (data / name).symlink_to(prepared / "data" / name)

    def put(name: str, fill: Callable[[Path], object]) -> None:
        draft = Draft(name, data / ".partial" / name)
        draft.path.mkdir(parents=True)
        fill(draft.path)
        seal(draft, {})
        publish(draft, data / name)

    def link_model(folder: Path) -> None:
        for path in model.iterdir():
            os.link(path, folder / path.name)

    put("dedupe", lambda folder: KeptRows.all_of(len(TokenTable(data / "tokens"))).save(folder / "index.arrow"))
    if (model / "manifest.json").exists():
        (data / "base").symlink_to(model)
    else:
        put("base", link_model)
    return place


def run_stage(name: str, place: Path, recipe: dict[str, Any], progress: Any, observed: dict[str, Any] | None = None) -> Result:
    """Pack or train in a folder of :func:`lay_out`; the stage's metrics."""
    from pipeline.options.views import RecipeOptions
    from pipeline.runner import execute
    from stages.pack import STAGE as PACK
    from stages.train import STAGE as TRAIN

    stage = PACK if name == "pack" else TRAIN
    _, metrics = execute(
        stage,
        stage.options.model_validate(RecipeOptions.model_validate(recipe).model_dump()),
        data=place / "data",
        scratch=place / "scratch" / name,
        sources=place / "data" / "sources",
        identity="benchmark",
        code="benchmark",
        cache=place / "cache",
        progress=progress,
        observed=observed,
    )
    return dict(metrics)


def trl(model: str, prepared: str, length: int, steps: int, workspace: str, config: dict[str, Any], lora: bool, **load: Any) -> Result:
    """SFTTrainer with packing, on the same token rows. ``config`` goes to SFTConfig, ``load`` to from_pretrained.

    Raises:
        AssertionError: rows of a bin would see each other, so that it does less than we do.
    """
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer  # type: ignore[attr-defined]

    from pipeline.tokens import TokenTable

    table = TokenTable(Path(prepared) / "data" / "tokens")
    short = [row for row in range(len(table)) if table.lengths[row] <= length]
    ids = [table.ids(row).tolist() for row in short]
    labels = [[token if on else -100 for token, on in zip(table.ids(row).tolist(), table.mask(row).tolist(), strict=True)] for row in short]
    clock = Clock()
    seen: list[Any] = [0, 0]

    class Timing(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.tick(seen[0], int(seen[1]))
            seen[:] = [0, 0]

    class Counting(SFTTrainer):
        def compute_loss(self, model: Any, inputs: Any, *arguments: Any, **keywords: Any) -> Any:
            seen[0] += inputs["input_ids"].numel()
            seen[1] = seen[1] + (inputs["labels"] != -100).sum()  # a number only when the step has ended: a GPU would be waited for
            return super().compute_loss(model, inputs, *arguments, **keywords)  # type: ignore[no-untyped-call]

    settings: dict[str, Any] = {
        "output_dir": str(Path(workspace) / "trl"),
        "max_steps": steps,
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 1,
        "max_length": length,
        "packing": True,
        "packing_strategy": "bfd",
        "learning_rate": 1e-4,
        "lr_scheduler_type": "cosine",
        "optim": "adamw_torch",
        "gradient_checkpointing": False,
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        **config,
    }
    adapter = LoraConfig(task_type="CAUSAL_LM", r=_LORA["lora_r"], lora_alpha=_LORA["lora_alpha"], target_modules="all-linear")
    trainer = Counting(
        AutoModelForCausalLM.from_pretrained(model, **({"dtype": "float32"} | load)),
        args=SFTConfig(**settings),
        train_dataset=Dataset.from_dict({"input_ids": ids, "labels": labels}),
        processing_class=AutoTokenizer.from_pretrained(Path(prepared) / "data" / "tokenizer"),
        peft_config=adapter if lora else None,
        callbacks=[Timing()],
    )
    batch = next(iter(trainer.get_train_dataloader()))
    assert "position_ids" in batch and "attention_mask" not in batch
    trainer.train()
    return clock.result()


MEASURES: dict[str, Callable[..., Result]] = {"prepare": prepare, "regrow": regrow, "trl": trl}


if __name__ == "__main__":
    main()

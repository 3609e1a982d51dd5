"""What the models are to be judged on besides the held-out rows, into data/benchmark: rows of a benchmark, and tasks with their data."""

from __future__ import annotations

import shutil

from pipeline.artifact import Draft
from pipeline.errors import RegrowError
from pipeline.options.datasets import FetchedDataset
from pipeline.options.views import FetchOptions
from pipeline.source import hub_file
from stages.fetch.locate import Locator, Wanted
from stages.fetch.rows import SourceRows

TASKS = "lm-eval"
"""The folder of task files, and the slot at which `configure` links them."""


def write_benchmark(options: FetchOptions, locator: Locator, draft: Draft) -> None:
    """Write what `bench_dataset` and `eval.lm_eval.include_path` name; nothing where neither is wanted."""
    sources = []
    if options.do_bench_eval and options.bench_dataset is not None:
        entry = _entry(options.bench_dataset, options.bench_split, is_linked=locator.is_linked("bench"))
        sources = SourceRows(entry, "bench_dataset", "bench", "bench", options, locator, draft.path).write()
    draft.describe(sources=sources)
    if options.eval.lm_eval.include_path is not None:
        _copy_tasks(options.eval.lm_eval.include_path, locator, draft)


def _entry(value: str, split: str | None, *, is_linked: bool) -> FetchedDataset:
    """The entry that `bench_dataset` stands for. What `configure` found on this disk is no file of the hub."""
    on_hub = None if is_linked else hub_file(value)
    if on_hub is None:
        return FetchedDataset(path=value, split=split)
    return FetchedDataset(path=on_hub[0], data_files=[on_hub[1]], split=split)


def _copy_tasks(value: str, locator: Locator, draft: Draft) -> None:
    wanted = Wanted("eval.lm_eval.include_path", TASKS, value, "dataset")
    located = locator.locate(wanted, lambda names: [name for name in names if not name.startswith(".")])
    if not any(name.endswith((".yaml", ".yml")) for name in located.files):
        raise RegrowError(f"eval.lm_eval.include_path: {value!r} holds no task.", "A task of lm-eval is a .yaml file.")
    for name in located.files:
        target = draft.path / TASKS / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(located.root / name, target)

"""Tasks of the lm-evaluation-harness, in a process of their own, which is told to reach no network.

Data of tasks that come with lm-eval must be in the Hugging Face cache already. Tasks of data/benchmark/lm-eval bring theirs, and paths
in their ``data_files`` start at that folder. The package is an extra that the lock leaves out; its version stands beside the results.

Imports nothing heavy: the other process begins here, and sets what the libraries read first.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from pipeline.errors import MissingExtra, RegrowError
from pipeline.process import die_with_parent

_OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
_RESAMPLES = 1000
"""For the standard errors of metrics that have no formula."""


@dataclass(frozen=True)
class Harness:
    """What is asked of lm-eval.

    Attributes:
        tasks: names of tasks or groups.
        limit: rows of each task, or None for all.
        folder: data/benchmark/lm-eval, or None where `eval.lm_eval.include_path` is not set.
        tokenizer: data/tokenizer.
        scratch: where the datasets library may keep what it converts.
        log: a file for what the libraries say.
    """

    tasks: tuple[str, ...]
    limit: int | None
    batch_size: int
    folder: Path | None
    tokenizer: Path
    scratch: Path
    log: Path

    def facts(self) -> dict[str, Any]:
        """What decides the results, besides model, tokenizer and the files of ``folder``."""
        return {"tasks": list(self.tasks), "limit": self.limit, "batch_size": self.batch_size, "lm_eval": version("lm_eval")}


def require_lm_eval() -> None:
    """Refuse before any model is opened.

    Raises:
        MissingExtra: the package is not installed.
    """
    if find_spec("lm_eval") is None:
        raise MissingExtra("eval.lm_eval.tasks", "lm_eval", "lm-eval")


def run_harness(harness: Harness, model: Path) -> dict[str, dict[str, float]]:
    """By task: each metric's value, and its standard error under ``NAME_stderr``.

    Raises:
        RegrowError: lm-eval could not do it: an unknown task, data that is not here.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_begin, initargs=(os.getpid(),)) as pool:
        try:
            return pool.submit(_evaluate, harness, model).result()
        except BrokenProcessPool:
            raise RegrowError(
                f"lm-eval's process ended without a result on {model}.", "If it ran out of memory, lower eval.batch_size."
            ) from None


def _begin(parent: int) -> None:
    die_with_parent(parent)
    os.environ.update(_OFFLINE)


def _evaluate(harness: Harness, model: Path) -> dict[str, dict[str, float]]:
    """In the other process."""
    os.environ["HF_DATASETS_CACHE"] = str(harness.scratch)
    _talk_into(harness.log)
    from transformers import AutoTokenizer

    from pipeline.model_folder import open_model

    tokenizer = AutoTokenizer.from_pretrained(harness.tokenizer, local_files_only=True)
    model_class = import_module("lm_eval.models.huggingface").HFLM
    opened = model_class(pretrained=open_model(model), tokenizer=tokenizer, batch_size=harness.batch_size)
    folder = None if harness.folder is None else harness.folder.resolve()
    manager = import_module("lm_eval.tasks").TaskManager(include_path=None if folder is None else str(folder))
    settings = {"limit": harness.limit, "bootstrap_iters": _RESAMPLES, "task_manager": manager, "log_samples": False}
    try:
        with contextlib.chdir(folder or Path.cwd()):
            found = import_module("lm_eval").simple_evaluate(opened, tasks=list(harness.tasks), **settings)
    except (OSError, ValueError, KeyError, AttributeError, RuntimeError, NotImplementedError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RegrowError(
            f"eval.lm_eval.tasks {list(harness.tasks)}: lm-eval cannot do it: {reason}",
            "Name tasks of eval.lm_eval.include_path, whose data_files lie beside them, or bring their data into the hub's cache first.",
        ) from None
    return {name: _numbers(values) for name, values in sorted(found["results"].items())}


def _talk_into(log: Path) -> None:
    """Bars and notes of the libraries, and of programs that they call."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as stream:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """lm-eval's ``metric,filter`` keys with their values, without what is no number; ``none`` is the name of no filter."""
    named = {_name(key): value for key, value in values.items() if key not in ("alias", "sample_len")}
    return {name: float(value) for name, value in sorted(named.items()) if isinstance(value, (int, float))}


def _name(key: str) -> str:
    metric, _, chosen = key.partition(",")
    error = "_stderr" if metric.endswith("_stderr") else ""
    return metric.removesuffix("_stderr") + (f":{chosen}" if chosen not in ("", "none") else "") + error

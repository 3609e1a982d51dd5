"""Rules about what the models are judged on when they are done."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.errors import RegrowError
from pipeline.options.rules.broken import Broken, broken
from pipeline.options.views import RecipeOptions
from pipeline.source import hub_file, parse_source

_NAMED = ("mmlu", "mmlu-zs", "mmlu-fs")
"""Names that Axolotl has for copies of MMLU on the hub."""


def benchmark_is_named(options: RecipeOptions) -> Iterator[Broken]:
    """There is no default benchmark."""
    if options.do_bench_eval and options.bench_dataset is None:
        yield broken("do_bench_eval bench_dataset", "bench_dataset is not set", "name a benchmark")


def benchmark_is_a_dataset(options: RecipeOptions) -> Iterator[Broken]:
    """It is found as any other data is."""
    name = options.bench_dataset
    if name in _NAMED:
        wrong = "Axolotl's name for a copy of MMLU, which regrow does not know"
        yield broken("bench_dataset", wrong, "name the file: cais/mmlu/all/test-00000-of-00001.parquet")
    elif name is not None and hub_file(name) is None:
        try:
            parse_source(name)
        except RegrowError as error:
            yield broken("bench_dataset", error.message, error.remedy or "name a file")


def generation_has_rows(options: RecipeOptions) -> Iterator[Broken]:
    """Prompts are those of held-out rows."""
    if options.do_causal_lm_eval and not (options.val_set_size or options.test_datasets):
        wrong = "there are no held-out rows whose turns could be answered"
        yield broken("do_causal_lm_eval val_set_size", wrong, "add `val_set_size: 0.05`, or test_datasets")


def comet_is_elsewhere(options: RecipeOptions) -> Iterator[Broken]:
    """unbabel-comet 2.2.7 wants transformers below 5, numpy below 2 and a model from the hub."""
    if "comet" in (options.eval_causal_lm_metrics or []):
        wrong = "the package unbabel-comet cannot be installed beside transformers 5"
        yield broken(
            "eval_causal_lm_metrics", wrong, "remove comet, and score data/eval/generations.parquet with it in an environment apart"
        )


def judged_once(options: RecipeOptions) -> Iterator[Broken]:
    """Each metric and each task is one line of the report."""
    lists = {"eval_causal_lm_metrics": options.eval_causal_lm_metrics, "eval.lm_eval.tasks": options.eval.lm_eval.tasks}
    for key, given in lists.items():
        values: list[str] = [*(given or [])]
        for value in dict.fromkeys(value for index, value in enumerate(values) if value in values[:index]):
            yield broken(key, f"{value} is given {values.count(value)} times", "keep one of them")


def tasks_are_named(options: RecipeOptions) -> Iterator[Broken]:
    """A folder of tasks says what there is, not what is wanted."""
    wanted = options.eval.lm_eval
    for key in ("include_path", "limit"):
        if getattr(wanted, key) is not None and not wanted.tasks:
            yield broken(f"eval.lm_eval.{key}", "no task is named", "add `tasks: [NAME]` beside it")


EVALUATION = (benchmark_is_named, benchmark_is_a_dataset, generation_has_rows, comet_is_elsewhere, judged_once, tasks_are_named)

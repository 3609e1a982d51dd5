"""Evaluation, guards and profiling. Read by fetch, eval and train.

fetch sees where a benchmark and tasks of your own come from, so that eval reaches no network; eval sees the rest.
"""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict

from pipeline.options.schema import LARGEST, Group, option, refused, renamed

_LM_EVAL = "Tasks of the lm-evaluation-harness, offline."
_INCLUDE_PATH = (
    "Folder (or hub dataset) with task files and their data, for tasks that do not come with lm-eval. Paths in data_files start at it."
)


class LmEvalSource(Group):
    """The part of `eval.lm_eval` that fetch reads."""

    include_path: str | None = option(None, _INCLUDE_PATH, min_length=1)


class LmEvalTasks(Group):
    """The part of `eval.lm_eval` that eval reads."""

    tasks: list[str] | None = option(None, "Names of tasks, or of groups of them.", min_length=1, extras=(("*", "lm_eval", "lm-eval"),))
    limit: int | None = option(None, "Rows of each task to take; default all of them.", ge=1, le=LARGEST)


class LmEvalGroup(LmEvalSource, LmEvalTasks):
    """All of `eval.lm_eval`."""

    model_config = ConfigDict(extra="forbid")


class HowJudged(Group):
    """The part of `eval` that eval reads."""

    batch_size: int = option(16, "Rows per forward pass.", ge=1, le=65536)
    choices: list[str] | None = option(
        None, "Possible answers. Accuracy then asks which of them the model finds likeliest (by first token).", min_length=2
    )
    samples: int = option(8, "Held-out prompts that every model answers, side by side in the report.", ge=0, le=LARGEST)
    max_new_tokens: int = option(64, "Longest sample answer, in tokens.", ge=1, le=LARGEST)
    lm_eval: LmEvalTasks = option(LmEvalTasks(), _LM_EVAL)


class TaskSources(Group):
    """The part of `eval` that fetch reads."""

    lm_eval: LmEvalSource = option(LmEvalSource(), _LM_EVAL)


class EvalGroup(HowJudged, TaskSources):
    """Options of the eval stage, which Axolotl has no key for, whole."""

    model_config = ConfigDict(extra="forbid")

    lm_eval: LmEvalGroup = option(LmEvalGroup(), _LM_EVAL)


class BenchmarkSources(Group):
    """Read by fetch: what is to be judged on besides the held-out rows."""

    eval: TaskSources = option(TaskSources(), "Options of the eval stage.")
    do_bench_eval: bool = option(False, "Measure accuracy on a multiple-choice benchmark, subject by subject.")
    bench_dataset: str | None = option(
        None,
        "The benchmark: anything that the path of a dataset may name, or OWNER/NAME/FILE for one file of a hub dataset. Rows have "
        "question, choices and answer (as MMLU or ARC have them), or input and output (a letter); subject if there are several.",
        min_length=1,
    )
    bench_split: str | None = option(None, "Its split, with a slice if wanted (validation[:100]); default test.", min_length=1)


class Evaluation(Group):
    """Read by eval."""

    eval: HowJudged = option(HowJudged(), "Options of the eval stage.")
    do_causal_lm_eval: bool = option(
        False,
        "Have every model answer every trained turn of the held-out rows, greedily, and compare its answers with the data's.",
        extras=(("True", "sacrebleu", "sacrebleu"),),
    )
    eval_causal_lm_metrics: list[Literal["sacrebleu", "comet", "ter", "chrf", "perplexity"]] | None = option(
        None,
        "How they are compared: sacrebleu (BLEU), chrf, ter, as the package sacrebleu has them; perplexity of the data's answers. "
        "Default: all of these.",
    )
    eval_max_new_tokens: int = option(128, "Longest generated answer, in tokens. Samples have eval.max_new_tokens.", ge=1, le=LARGEST)
    eval_table_size: int | None = refused(
        "Predictions that Axolotl sends to its tracker.", "samples are in the report", "set eval.samples", idle=(0,)
    )


class WholeEvaluation(BenchmarkSources, Evaluation):
    """All of it, as params.yaml gives it."""

    eval: EvalGroup = option(EvalGroup(), "Options of the eval stage.")


class Guards(Group):
    """Read by train."""

    loss_watchdog_threshold: float | None = option(None, "Fail when the training loss stays above this.", gt=0)
    loss_watchdog_patience: int | None = option(None, "Steps in a row above it that fail the run; default 3.", ge=1, le=LARGEST)
    gc_collect_steps: int | None = option(
        None, "Steps between garbage collections; -1: at epoch end and before evaluation.", execution=True, newer=True, ge=-1, le=LARGEST
    )
    torch_empty_cache_steps: int | None = option(
        None,
        "Steps between emptying the GPU's cache; -1: at epoch end and before evaluation.",
        execution=True,
        newer=True,
        ge=-1,
        le=LARGEST,
    )
    gc_steps: int | None = renamed("torch_empty_cache_steps and gc_collect_steps")
    profiler_steps: int | None = option(
        None,
        "Record so many steps into data/metrics/train: on a CUDA GPU a snapshot of its memory, elsewhere a trace for chrome://tracing.",
        execution=True,
        ge=0,
        le=LARGEST,
    )
    profiler_steps_start: int = option(0, "Steps before the first of these.", execution=True, ge=0, le=LARGEST)
    include_tokens_per_second: bool = option(
        False, "Say at the end how many tokens per second the run trained; its record has them in any case.", execution=True
    )
    include_tkps: bool = option(
        True, "Tokens per second in the progress line, and of each step in data/metrics/train/speed.csv.", execution=True
    )

"""Evaluation, guards and profiling. Read by eval and train."""

from __future__ import annotations

from typing import Literal

from pipeline.options.schema import LARGEST, Group, Nested, not_yet, option, refused, renamed


class EvalGroup(Nested):
    """Options of the eval stage, which Axolotl has no key for."""

    batch_size: int = option(16, "Rows per forward pass.", ge=1, le=65536)
    choices: list[str] | None = option(
        None, "Possible answers. Accuracy then asks which of them the model finds likeliest (by first token).", min_length=2
    )
    samples: int = option(8, "Held-out prompts that every model answers, side by side in the report.", ge=0, le=LARGEST)
    max_new_tokens: int = option(64, "Longest sample answer, in tokens.", ge=1, le=LARGEST)


class Evaluation(Group):
    """Read by eval."""

    eval: EvalGroup = option(EvalGroup(), "Options of the eval stage.")
    do_causal_lm_eval: bool | None = not_yet("Generate answers to held-out prompts and compare them with the data.")
    eval_causal_lm_metrics: list[Literal["sacrebleu", "comet", "ter", "chrf", "perplexity"]] | None = not_yet(
        "How they are compared.", idle=([],)
    )
    eval_max_new_tokens: int | None = not_yet("Longest generated answer; see eval.max_new_tokens for what works.", idle=(), ge=1)
    do_bench_eval: bool | None = not_yet("Measure accuracy on a multiple-choice benchmark.")
    bench_dataset: str | None = not_yet("The benchmark.")
    bench_split: str | None = not_yet("Its split.")
    eval_table_size: int | None = refused(
        "Predictions that Axolotl sends to its tracker.", "samples are in the report", "set eval.samples", idle=(0,)
    )


class Guards(Group):
    """Read by train."""

    loss_watchdog_threshold: float | None = not_yet("Stop when the loss stays above this.", idle=(), gt=0)
    loss_watchdog_patience: int | None = not_yet("Logged losses above it in a row that stop the run; default 3.", idle=(), ge=1)
    gc_collect_steps: int | None = not_yet(
        "Steps between garbage collections; -1: at epoch end and before evaluation.", execution=True, idle=(0,), newer=True, ge=-1
    )
    torch_empty_cache_steps: int | None = not_yet("Steps between emptying the GPU's cache.", execution=True, idle=(0,), newer=True, ge=-1)
    gc_steps: int | None = renamed("torch_empty_cache_steps and gc_collect_steps")
    profiler_steps: int | None = not_yet("Record GPU memory for so many steps.", needs="a CUDA GPU", execution=True, idle=(0,), ge=0)
    profiler_steps_start: int | None = not_yet("First of these steps.", 0, execution=True, idle=(), ge=0)
    include_tokens_per_second: bool | None = not_yet("Tokens per second of the whole run; the run record has them.", execution=True)
    include_tkps: bool | None = not_yet("Tokens per second of each step.", True, execution=True)

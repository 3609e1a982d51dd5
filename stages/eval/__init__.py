"""eval: how good the base, the merged and the quantised models are on the held-out rows, and one page that shows it.

Reads every artifact from data/base to data/quantized, and data/benchmark. Writes data/eval:

``metrics.json``
    Every number, by model; ``held_out`` and ``benchmark`` count what was asked.
``predictions.parquet``, ``generations.parquet``, ``benchmark.parquet``
    One record per model and held-out row; per model and trained turn (`do_causal_lm_eval`); per model and question (`do_bench_eval`).
``samples.jsonl``, ``accuracy.csv``, ``held_out_loss.csv``, ``benchmark.csv``, ``loss.csv``
    What is shown side by side, and one file per plot.
``report.html``
    Needs nothing but a browser.

What a model made of a task stays in the stage's cache under the digests of both: an unchanged model is never judged again.
"""

from __future__ import annotations

from pipeline.options.views import EvalOptions
from pipeline.stage import Job, Metrics, Stage


def run(job: Job[EvalOptions]) -> Metrics:
    """Judge one model after another on the same rows, compare them, write the numbers and the report."""
    from stages.eval.evaluation import evaluate

    return evaluate(job)


READS = ("base", "benchmark", "tokenizer", "tokens", "dedupe", "packed", "trained", "merged", "quantized")

STAGE = Stage("eval", EvalOptions, reads=READS, writes=("eval",), run=run)

"""eval: how good the base, the merged and the quantised models are on the held-out rows, and one page that shows it.

Reads every artifact from data/base to data/quantized. Writes data/eval: ``metrics.json``, ``predictions.jsonl`` (one record
per model and row), ``samples.jsonl``, one CSV per plot, and ``report.html``, which needs nothing but a browser.
"""

from __future__ import annotations

from pipeline.options.views import EvalOptions
from pipeline.stage import Job, Metrics, Stage


def run(job: Job[EvalOptions]) -> Metrics:
    """Judge one model after another on the same rows, compare them, write the numbers and the report."""
    from stages.eval.evaluation import evaluate

    return evaluate(job)


READS = ("base", "tokenizer", "tokens", "dedupe", "packed", "trained", "merged", "quantized")

STAGE = Stage("eval", EvalOptions, reads=READS, writes=("eval",), run=run)

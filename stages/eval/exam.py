"""All that the models are asked, opened and checked once. What can be refused is refused here, before any model is opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.options.views import EvalOptions
from pipeline.stage import Job
from stages.eval.benchmark import Benchmark, open_benchmark
from stages.eval.extras import majority_share
from stages.eval.harness import Harness, require_lm_eval
from stages.eval.held_out import HeldOut, open_held_out, open_tokenizer
from stages.eval.subjects import Subject, find_subjects
from stages.eval.tasks import Asked, Asking
from stages.eval.text_metrics import TEXT_METRICS, require_sacrebleu


@dataclass(frozen=True)
class Exam:
    """Who is asked what.

    Attributes:
        subjects: base, merged, and the quantised models.
        benchmark: None without one; so is ``harness`` without tasks of lm-eval.
        metrics: of `eval_causal_lm_metrics`; empty without `do_causal_lm_eval`.
        generates: every turn is answered.
    """

    subjects: Sequence[Subject]
    held_out: HeldOut
    benchmark: Benchmark | None
    harness: Harness | None
    metrics: Sequence[str]
    generates: bool

    def benchmark_facts(self) -> dict[str, Any] | None:
        """What the benchmark is called, how many questions it has, what one fixed letter would score."""
        if self.benchmark is None:
            return None
        share = round(majority_share(self.benchmark), 6)
        return {"name": self.benchmark.name, "questions": len(self.benchmark.rows), "majority_share": share}


def open_exam(job: Job[EvalOptions]) -> Exam:
    """Read what the options ask for.

    Raises:
        MissingExtra: it needs a package that is not installed.
        RegrowError: choices, or a benchmark's rows, that cannot be told apart.
    """
    options = job.options
    metrics = options.eval_causal_lm_metrics if options.eval_causal_lm_metrics is not None else [*TEXT_METRICS, "perplexity"]
    metrics = metrics if options.do_causal_lm_eval else []
    require_sacrebleu(metrics)
    tokenizer = open_tokenizer(job.inputs["tokenizer"].path)
    held_out, benchmark = open_held_out(job, tokenizer), open_benchmark(job.inputs["benchmark"], tokenizer)
    generates = options.do_causal_lm_eval and bool(held_out.rows)
    return Exam(find_subjects(job.inputs), held_out, benchmark, _harness(job), metrics, generates)


def _harness(job: Job[EvalOptions]) -> Harness | None:
    wanted, folder = job.options.eval.lm_eval, job.inputs["benchmark"].path / "lm-eval"
    if not wanted.tasks:
        return None
    require_lm_eval()
    return Harness(
        tasks=tuple(wanted.tasks),
        limit=wanted.limit,
        batch_size=job.options.eval.batch_size,
        folder=folder if folder.is_dir() else None,
        tokenizer=job.inputs["tokenizer"].path,
        scratch=job.scratch / "lm-eval",
        log=job.records / "lm-eval.log",
    )


def tasks_of(exam: Exam, job: Job[EvalOptions]) -> list[Asked]:
    """What each model is asked, in this order; lm-eval last, because it opens the model for itself."""
    options, held_out, asking = job.options, exam.held_out, Asking.of(job)
    samples = held_out.samples[: options.eval.samples]
    tasks = [asking.loss(held_out)] if held_out.rows else []
    tasks += [asking.answers("answers", samples, held_out.ending, options.eval.max_new_tokens)] if samples else []
    if exam.generates:
        tasks.append(asking.answers("generation", held_out.turns, held_out.ending, options.eval_max_new_tokens))
    tasks += [asking.benchmark(exam.benchmark)] if exam.benchmark is not None else []
    if exam.harness is not None:
        files = {**job.inputs["benchmark"].files, **{f"tokenizer/{name}": facts for name, facts in job.inputs["tokenizer"].files.items()}}
        tasks.append(asking.harness(exam.harness, {name: facts["sha256"] for name, facts in files.items()}))
    return tasks

"""What every model is asked to do, each with the digest of all that decides its result besides the model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pipeline.digest import digest_json
from pipeline.errors import RegrowError
from pipeline.options.views import EvalOptions
from pipeline.progress import Progress
from pipeline.stage import Job
from stages.eval.answers import Turn
from stages.eval.benchmark import Benchmark, group_by_letters
from stages.eval.generate import Ending, Generated, generate
from stages.eval.harness import Harness, run_harness
from stages.eval.held_out import HeldOut
from stages.eval.judge import Judgement, judge
from stages.eval.results import Task
from stages.eval.scores import check_finite
from stages.eval.subjects import OpenSubject


@dataclass(frozen=True)
class Asked:
    """A task, and what does it: from a model to JSON values."""

    task: Task
    do: Callable[[OpenSubject], Any]


@dataclass(frozen=True)
class Asking:
    """What all tasks of a run share."""

    code: str
    progress: Progress
    batch_size: int

    @classmethod
    def of(cls, job: Job[EvalOptions]) -> Asking:
        return cls(job.code, job.progress, job.options.eval.batch_size)

    def task(self, name: str, **decides: Any) -> Task:
        """A task that is decided by these (JSON values), by the code with its libraries, the batches and the kind of device."""
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
        return Task(name, digest_json({"code": self.code, "device": device, "batch_size": self.batch_size, **decides}))

    def loss(self, held_out: HeldOut) -> Asked:
        """How likely every judged token is."""
        ids = held_out.choices.ids if held_out.choices else None

        def do(subject: OpenSubject) -> Any:
            with self.progress.task(f"judge {subject.name}", total=len(held_out.rows)) as task:
                judgement = judge(subject.model, held_out.rows, self.batch_size, ids, task)
            check_finite(subject.name, judgement, held_out)
            return judgement.to_json()

        return Asked(self.task("loss", rows=held_out.digest, choices=None if ids is None else ids.tolist()), do)

    def answers(self, name: str, turns: Sequence[Turn], ending: Ending, max_new_tokens: int) -> Asked:
        """What the model says greedily."""

        def do(subject: OpenSubject) -> Any:
            with self.progress.task(f"{name} of {subject.name}", total=len(turns), unit="prompts") as task:
                given = generate(subject.model, [turn.prompt for turn in turns], ending, self.batch_size, max_new_tokens, task)
            return [[answer.ids.tolist(), answer.ended] for answer in given]

        prompts = _digest(turn.prompt for turn in turns)
        return Asked(self.task(name, prompts=prompts, ending=[*ending.ids, ending.pad], max_new_tokens=max_new_tokens), do)

    def benchmark(self, benchmark: Benchmark) -> Asked:
        """Which letter is likeliest behind each question."""

        def do(subject: OpenSubject) -> Any:
            chosen = np.full(len(benchmark.rows), -1, np.int64)
            with self.progress.task(f"ask {subject.name} the benchmark", total=len(chosen), unit="questions") as task:
                for letters, numbers in group_by_letters(benchmark):
                    found = judge(subject.model, [benchmark.rows[number] for number in numbers], self.batch_size, letters, task)
                    chosen[numbers] = found.choice
                    if not np.isfinite(found.nll).all():
                        raise RegrowError(f"The {subject.name} model's loss on {benchmark.name} is no number: its weights are broken.")
            return chosen.tolist()

        letters = [ids.tolist() for ids in benchmark.letter_ids]
        return Asked(self.task("benchmark", questions=_digest(row.ids[:-1] for row in benchmark.rows), letters=letters), do)

    def harness(self, harness: Harness, files: dict[str, str]) -> Asked:
        """lm-eval's tasks. ``files``: digests of the tokenizer and of the tasks' own files."""

        def do(subject: OpenSubject) -> Any:
            subject.close()  # the other process opens it for itself
            with self.progress.task(f"lm-eval on {subject.name}", total=1, unit="runs"):
                return run_harness(harness, subject.folder)

        return Asked(self.task("lm-eval", files=files, **harness.facts()), do)


def read_judgement(result: Any) -> Judgement:
    """What :meth:`Asking.loss` found."""
    return Judgement.from_json(result)


def read_answers(result: Any) -> list[Generated]:
    """What :meth:`Asking.answers` found."""
    return [Generated(np.array(ids, np.int64), ended) for ids, ended in result]


def _digest(parts: Iterable[np.ndarray]) -> str:
    hasher = hashlib.sha256()
    for part in parts:
        hasher.update(np.int64(len(part)).tobytes())
        hasher.update(part.astype("<i8").tobytes())
    return hasher.hexdigest()

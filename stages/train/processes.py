"""Several processes train together, on this machine or on several: started, told of signals, and ended with the first that fails.

They are launched as torchrun would launch them, through the variables that torch.distributed reads, so that one stage of
dvc.yaml starts all of them and DVC sees one command.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

import torch

from pipeline.errors import Interrupted, RegrowError
from pipeline.options.views import TrainOptions
from pipeline.process import die_with_parent
from pipeline.progress import Progress, open_progress
from pipeline.stage import Job, Metrics
from stages.train.machines import Line, Place, free_port, leader_gone, led, outcome, ready_ends

_GRACE = 60
"""Seconds that processes have to end by themselves when their work is done."""


@dataclass(frozen=True)
class Trained:
    """What the leading process has to say besides the files it wrote."""

    metrics: Metrics
    content: dict[str, Any]
    observed: dict[str, Any]


def train_together(job: Job[TrainOptions], count: int) -> Metrics:
    """Train in ``count`` processes and wait for them; :func:`stages.train.run` of one process otherwise.

    Raises:
        RegrowError: what one of them raised; fewer GPUs than processes; a process that died, a machine that left.
    """
    machines = job.options.train.num_machines
    with led(job, count, machines) if machines > 1 else _at_home(count) as (place, lines):
        trained = train_in_place(job, place, lines)
    assert trained is not None, "the leading process has something to say"
    job.observed.update(trained.observed)
    job.outputs["trained"].describe(**trained.content)
    return trained.metrics


@contextmanager
def _at_home(count: int) -> Iterator[tuple[Place, list[Line]]]:
    """The place of a machine that trains alone."""
    yield Place(0, count, count, "127.0.0.1", free_port()), []


def train_in_place(job: Job[TrainOptions], place: Place, lines: list[Line]) -> Trained | None:
    """Start the processes of this machine and wait for them, and on the leading one for the ``lines`` to the others.

    Returns what the leading process says, on its machine.

    Raises:
        RegrowError: see :func:`train_together`.
    """
    if torch.cuda.is_available() and torch.cuda.device_count() < place.count:
        shares = f" on {job.options.train.num_machines} machines" if place.count < place.world_size else ""
        raise RegrowError(
            f"train.num_processes: {place.world_size}{shares}, and there are {torch.cuda.device_count()} GPUs; each process takes one.",
            "Write fewer, or hide the GPUs (CUDA_VISIBLE_DEVICES=) to train on the CPU.",
        )
    context = multiprocessing.get_context("spawn")
    bare = replace(job, progress=Progress(), observed={})
    ends = [context.Pipe(duplex=False) for _ in range(place.count)]
    processes = [
        context.Process(target=_member, args=(bare, place, local, os.getpid(), ends[local][1]), name=f"train-{place.first + local}")
        for local in range(place.count)
    ]
    with _passing_on(processes) as passed:
        for process, (_, writes) in zip(processes, ends, strict=True):
            process.start()
            writes.close()  # so that its end is noticed
        done = False
        try:
            said = _wait([reads for reads, _ in ends], lines, place, passed)
            done = True
        except Interrupted:
            done = True
            raise
        finally:
            _end(processes, _GRACE if done else 0)
    return said


def _member(job: Job[TrainOptions], place: Place, local: int, parent: int, told: Connection) -> None:
    """One process: its place in the environment, its part of the work, and what became of it."""
    die_with_parent(parent)
    rank = place.first + local
    numbers = {
        "RANK": rank,
        "LOCAL_RANK": local,
        "WORLD_SIZE": place.world_size,
        "LOCAL_WORLD_SIZE": place.count,
        "MASTER_PORT": place.port,
    }
    os.environ.update({name: str(value) for name, value in numbers.items()} | {"MASTER_ADDR": place.address})
    from stages.train import train_alone

    torch.set_num_threads(max(1, torch.get_num_threads() // place.count))
    job = replace(job, progress=open_progress() if rank == 0 else Progress())
    try:
        metrics = train_alone(job)
    except RegrowError as error:
        _tell(told, error)
        return
    _tell(told, Trained(metrics, dict(job.outputs["trained"].content), dict(job.observed)) if rank == 0 else None)


def _tell(told: Connection, what: Trained | RegrowError | None) -> None:
    with suppress(BrokenPipeError):  # the process that started this one was killed
        told.send(what)


def _wait(results: list[Connection], lines: list[Line], place: Place, passed: list[int]) -> Trained | None:
    """What the leading process says, once all are done. The first failure is that of all; a stop is complete when all have stopped."""
    leads = place.first == 0
    led_to: Trained | None = None
    stopped: Interrupted | None = None
    waiting: list[Connection | Line] = [*results, *lines]
    while any(leads or source in results for source in waiting):
        for source in ready_ends(waiting):
            waiting.remove(source)
            if isinstance(source, Line):
                said = _of_machine(source, leads, passed)
            else:
                said = _said(source, place.first + results.index(source), place.world_size, passed)
            if isinstance(said, Interrupted):
                stopped = stopped or said
            elif isinstance(said, RegrowError):
                raise said
            led_to = said if isinstance(said, Trained) else led_to
    if stopped is not None:
        raise stopped
    return led_to


def _of_machine(line: Line, leads: bool, passed: list[int]) -> RegrowError | None:
    """What became of another machine's part. The leading one says nothing until it ends."""
    ended = outcome(line) if leads else leader_gone(line)
    return _stopped_early() if ended is not None and passed and not isinstance(ended, Interrupted) else ended


def _stopped_early() -> Interrupted:
    return Interrupted("Training was asked to stop before its first step.", "Run the same command again.")


def _said(connection: Connection, rank: int, count: int, passed: list[int]) -> Any:
    try:
        return connection.recv()
    except EOFError:
        if passed:
            return _stopped_early()
        remedy = "What it printed stands above. Run the same command again to go on from the newest checkpoint."
        return RegrowError(f"Process {rank} of the {count} that train together died.", remedy)


def _end(processes: list[Any], grace: int) -> None:
    """None is left: one that waits for another, which failed, would wait for ddp_timeout. Checkpoints do not mind."""
    for process in processes:
        if process.pid is not None:
            process.join(grace)
            process.kill()
            process.join()


@contextmanager
def _passing_on(processes: list[Any]) -> Iterator[list[int]]:
    """Signals are meant for those that train. Yields what asked for a stop.

    A terminal's Ctrl-C reaches them by itself too, and `kill -INT` does not; to them both are one request.
    """
    passed: list[int] = []

    def pass_on(number: int, _frame: object) -> None:
        if number != signal.SIGUSR1:
            passed.append(number)
        for process in processes:
            if process.pid is not None and process.is_alive():
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGTERM if number == signal.SIGINT else number)

    numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
    before = {number: signal.signal(number, pass_on) for number in numbers}
    try:
        yield passed
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

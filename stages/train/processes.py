"""Several processes of this machine train together: started, told of signals, and ended with the first that fails.

They are launched as torchrun would launch them, through the variables that torch.distributed reads, so that one stage of
dvc.yaml starts all of them and DVC sees one command.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from pipeline.errors import Interrupted, RegrowError
from pipeline.options.views import TrainOptions
from pipeline.process import die_with_parent
from pipeline.progress import Progress, open_progress
from pipeline.stage import Job, Metrics

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
        RegrowError: what one of them raised; fewer GPUs than processes; a process that died.
    """
    if torch.cuda.is_available() and torch.cuda.device_count() < count:
        raise RegrowError(
            f"train.num_processes: {count}, and there are {torch.cuda.device_count()} GPUs; each process takes one.",
            "Write fewer, or hide the GPUs (CUDA_VISIBLE_DEVICES=) to train on the CPU.",
        )
    context = multiprocessing.get_context("spawn")
    port, bare = _free_port(), replace(job, progress=Progress(), observed={})
    ends = [context.Pipe(duplex=False) for _ in range(count)]
    processes = [
        context.Process(target=_member, args=(bare, rank, count, port, os.getpid(), ends[rank][1]), name=f"train-{rank}")
        for rank in range(count)
    ]
    with _passing_on(processes) as passed:
        for process, (_, writes) in zip(processes, ends, strict=True):
            process.start()
            writes.close()  # so that its end is noticed
        done = False
        try:
            led = _wait([reads for reads, _ in ends], passed)
            done = True
        except Interrupted:
            done = True
            raise
        finally:
            _end(processes, _GRACE if done else 0)
    job.observed.update(led.observed)
    job.outputs["trained"].describe(**led.content)
    return led.metrics


def _member(job: Job[TrainOptions], rank: int, count: int, port: int, parent: int, told: Connection) -> None:
    """One process: its place in the environment, its part of the work, and what became of it."""
    die_with_parent(parent)
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()} | {"MASTER_ADDR": "127.0.0.1"})
    from stages.train import train_alone

    torch.set_num_threads(max(1, torch.get_num_threads() // count))
    job = replace(job, progress=open_progress() if rank == 0 else Progress())
    try:
        metrics = train_alone(job)
    except RegrowError as error:
        told.send(error)
        return
    told.send(Trained(metrics, dict(job.outputs["trained"].content), dict(job.observed)) if rank == 0 else None)


def _wait(results: list[Connection], passed: list[int]) -> Trained:
    """What the leading process says, once all are done. The first failure is that of all; a stop is complete when all have stopped."""
    led: Trained | None = None
    stopped: Interrupted | None = None
    waiting = list(results)
    while waiting:
        for connection in wait(waiting):
            assert isinstance(connection, Connection)
            waiting.remove(connection)
            said = _said(connection, results.index(connection), len(results), passed)
            if isinstance(said, Interrupted):
                stopped = said
            elif isinstance(said, RegrowError):
                raise said
            led = said if isinstance(said, Trained) else led
    if stopped is not None or led is None:
        raise stopped or RegrowError("The leading process had nothing to say.")
    return led


def _said(connection: Connection, rank: int, count: int, passed: list[int]) -> Any:
    try:
        return connection.recv()
    except EOFError:
        if passed:
            return Interrupted("Training was asked to stop before its first step.", "Run the same command again.")
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


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port

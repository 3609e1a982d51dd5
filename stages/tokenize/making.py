"""Blocks to tokens, in order: found in the cache, made here, or put there by other processes first."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context
from typing import Any, NamedTuple

from pipeline.errors import RegrowError
from stages.tokenize import work
from stages.tokenize.cache import BlockCache, Tokens
from stages.tokenize.engine import EnginesDiffer
from stages.tokenize.source import Source

_AHEAD = 4
"""Blocks per worker that are under way at a time, so that memory does not grow with the data."""


class Planned(NamedTuple):
    """A block of the source with this number."""

    number: int
    source: Source
    task: work.Task


Make = Callable[[Sequence[Planned]], Iterator[tuple[Planned, Tokens]]]


@contextmanager
def making(cache: BlockCache, worker: work.Worker, settings: dict[str, Any], processes: int) -> Iterator[Make]:
    """How to get the tokens of blocks, in order. ``settings`` are those that ``worker`` was made with.

    Raises, while blocks are made:
        RegrowError: a process was killed, or the cache cannot be written.
        EnginesDiffer: as of :meth:`stages.tokenize.engine.FastEngine.encode`.
    """

    def here(blocks: Sequence[Planned]) -> Iterator[tuple[Planned, Tokens]]:
        for block in blocks:
            yield block, _load(cache, worker, block)

    if processes == 1:
        yield here
        return
    before = set(active_children())
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=work.start, initargs=(settings, os.getpid()))
    try:
        yield lambda blocks: _elsewhere(pool, processes, blocks, cache, worker)
    except BaseException:
        for process in set(active_children()) - before:
            process.terminate()  # or a stop would wait for the blocks under way
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _elsewhere(
    pool: ProcessPoolExecutor, processes: int, blocks: Sequence[Planned], cache: BlockCache, worker: work.Worker
) -> Iterator[tuple[Planned, Tokens]]:
    waiting: deque[tuple[Planned, Future[None] | None]] = deque()
    sent: set[str] = set()
    for block in blocks:
        known = block.task.key in sent or cache.has(block.task.key)  # a file can be a source twice
        sent.add(block.task.key)
        waiting.append((block, None if known else _submit(pool, block.task)))
        if len(waiting) >= processes * _AHEAD:
            yield _finish(*waiting.popleft(), cache, worker)
    while waiting:
        yield _finish(*waiting.popleft(), cache, worker)


def _submit(pool: ProcessPoolExecutor, task: work.Task) -> Future[None]:
    """Ctrl-C reaches every process of the terminal. The workers, which may be started here, inherit that it is none of their business."""
    allowed = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.submit(work.run, task)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, allowed)


def _finish(block: Planned, future: Future[None] | None, cache: BlockCache, worker: work.Worker) -> tuple[Planned, Tokens]:
    try:
        with _named(block):
            if future is not None:
                future.result()
    except BrokenProcessPool:
        place = block.source.place(block.task.block)
        raise RegrowError(
            f"A process that tokenizes was killed, perhaps for lack of memory. It was at {place}, or soon after.",
            "Run again with a smaller dataset_num_proc; what is done is kept.",
        ) from None
    return block, _load(cache, worker, block)


def _load(cache: BlockCache, worker: work.Worker, block: Planned) -> Tokens:
    """A block's tokens; made now where the cache has none, or a damaged file."""
    found = cache.load(block.task.key)
    if found is None:
        with _named(block):
            worker.run(block.task)
        found = cache.load(block.task.key)
    if found is None:
        raise RegrowError("A block's tokens cannot be read back from the cache.", "Check the disk.")
    return found


@contextmanager
def _named(block: Planned) -> Iterator[None]:
    """A crash says at which rows it happened."""
    try:
        yield
    except (RegrowError, EnginesDiffer, BrokenProcessPool):
        raise
    except Exception as error:
        error.add_note(f"while tokenizing {block.source.place(block.task.block)}")
        raise

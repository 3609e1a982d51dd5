"""All sources, in config order, block by block: found in the cache or tokenized, then written and counted."""

from __future__ import annotations

import json
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa

from pipeline.digest import digest_file, digest_json
from pipeline.errors import RegrowError
from pipeline.options.views import TokenizeOptions
from pipeline.stage import Job, Metrics
from pipeline.tokens import TokenWriter, id_dtype
from stages.tokenize import work
from stages.tokenize.blocks import Block, split_blocks
from stages.tokenize.cache import BlockCache, Tokens
from stages.tokenize.engine import EnginesDiffer, Name, choose_engine

_BYTES_PER_WORKER = 8 * 2**20
"""A worker process takes a second to start; fewer bytes than these are not worth one."""
_AHEAD = 4
"""Blocks per worker that are under way at a time, so that memory does not grow with the data."""
_COUNTED = ("rows", "tokens", "trained_tokens")


@dataclass
class Source:
    """One file of one dataset entry, and what became of its rows."""

    facts: dict[str, Any]
    rows_file: Path
    numbers: np.ndarray | None
    counts: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    first_rejected: dict[str, int] = field(default_factory=dict)
    longest: int = 0

    @property
    def label(self) -> str:
        """The file as messages name it."""
        return f"{self.facts['path']} ({self.facts['file']})" if self.facts["path"] != self.facts["file"] else str(self.facts["path"])

    def row(self, line: int) -> int:
        """Number at the source of a line of the rows file."""
        return line if self.numbers is None else int(self.numbers[line])

    def describe(self) -> dict[str, Any]:
        """For the manifest."""
        counts = {name: self.counts[name] for name in _COUNTED}
        return self.facts | counts | {"longest": self.longest, "rejected": dict(sorted(self.rejected.items()))}


def tokenize_sources(job: Job[TokenizeOptions]) -> Metrics:
    """Write data/tokens from data/raw."""
    cache = BlockCache(_cache_folder(job))
    engine, reason = _engine(job)
    try:
        metrics = _tokenize(job, cache, engine, reason)
    except EnginesDiffer as difference:
        for path in job.outputs["tokens"].path.iterdir():
            path.unlink()
        metrics = _tokenize(job, cache, "tokenizers", f"fastokens gives other ids for {str(difference)[:40]!r}")
    return metrics


def _engine(job: Job[TokenizeOptions]) -> tuple[Name, str]:
    """The engine for this tokenizer and why; proved once, and remembered beside the blocks."""
    path = job.inputs["tokenizer"].path / "tokenizer.json"
    memo = _cache_folder(job) / f"engine-{digest_json([digest_file(path), job.code])[:32]}.json"
    if memo.exists():
        name, reason = json.loads(memo.read_text(encoding="utf-8"))
        return name, reason
    chosen = choose_engine(path)
    partial = memo.with_suffix(f".{os.getpid()}.partial")
    partial.write_text(json.dumps(chosen), encoding="utf-8")
    partial.replace(memo)
    return chosen


def _cache_folder(job: Job[TokenizeOptions]) -> Path:
    """Where tokens of blocks are kept. A folder of the user's may hold other things and lie in git: ours is inside it, and ignored."""
    chosen = job.options.dataset_prepared_path
    if chosen is None:
        return job.cache
    folder = Path(chosen).expanduser() / "regrow-blocks"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".gitignore").write_text("*\n", encoding="utf-8")
    return folder


def _tokenize(job: Job[TokenizeOptions], cache: BlockCache, engine: Name, reason: str) -> Metrics:
    draft, tokenizer = job.outputs["tokens"], job.inputs["tokenizer"].path
    settings: dict[str, Any] = {"options": job.options, "tokenizer": tokenizer, "cache": _cache_folder(job), "engine": engine}
    worker = work.Worker(**settings)
    sources = [_source(job, facts) for facts in job.inputs["raw"].content["sources"]]
    keys = {name: _entry_key(job, name, engine) for name in {source.facts["name"] for source in sources}}
    for name in sorted(keys):
        worker.format(name)  # what cannot work is said before anything is done
    tasks = [(number, task) for number, source in enumerate(sources) for task in _tasks(source, keys[source.facts["name"]])]
    missing = [task for _, task in tasks if not cache.has(task.key)]
    workers = _workers(job.options, missing)
    job.progress.say(f"Tokenizing with {engine} ({reason}), {len(tasks) - len(missing)} of {len(tasks)} blocks known, {workers} processes.")
    with ExitStack() as stack:
        writer = stack.enter_context(TokenWriter(draft.path, id_dtype(worker.encoder.vocab_size)))
        rejected = stack.enter_context((draft.path / "rejected.jsonl").open("w", encoding="utf-8"))
        progress = stack.enter_context(job.progress.task("tokenize", unit="rows", total=sum(task.block.lines for _, task in tasks)))
        load = stack.enter_context(_made(cache, worker, settings, workers))
        for number, task, tokens in load(tasks):
            added = _write(sources[number], number, task.block, tokens, writer, rejected)
            progress.advance(task.block.lines, tokens=added)
    for source in sources:
        _report(job, source)
    if job.options.tokenize.strict:
        _require_none_rejected(sources)
    totals: dict[str, Any] = {name: sum(source.counts[name] for source in sources) for name in (*_COUNTED, "rejected")}
    draft.describe(sources=[source.describe() for source in sources], vocab_size=worker.encoder.vocab_size, **totals)
    cache.prune((task.key for _, task in tasks), _most_cached(totals["tokens"]))
    return totals


def _source(job: Job[TokenizeOptions], facts: dict[str, Any]) -> Source:
    raw = job.inputs["raw"].path
    kept = {name: value for name, value in facts.items() if name not in ("rows_file", "numbers")}
    kept["type"] = _type_name(work.entry_of(job.options, facts["name"]).type)
    numbers = np.memmap(raw / facts["numbers"], "<i8", "r") if facts.get("numbers") else None
    return Source(kept, raw / facts["rows_file"], numbers)


def _type_name(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else "mapping"


def _entry_key(job: Job[TokenizeOptions], name: str, engine: Name) -> str:
    """What decides the tokens of an entry's rows besides their bytes."""
    options = job.options.canonical()
    lists = {"datasets": options.pop("datasets"), "test_datasets": options.pop("test_datasets", None)}
    split, number = name.split("-")
    entry = lists["datasets" if split == "train" else "test_datasets"][int(number)]
    tokenizer = {path.name: digest_file(path) for path in sorted(job.inputs["tokenizer"].path.iterdir()) if path.name != "manifest.json"}
    return digest_json({"entry": entry, "options": options, "tokenizer": tokenizer, "code": job.code, "engine": engine})


def _tasks(source: Source, entry_key: str) -> Iterator[work.Task]:
    for block in split_blocks(source.rows_file):
        yield work.Task(source.facts["name"], source.rows_file, block, digest_json([entry_key, block.digest]))


def _workers(options: TokenizeOptions, missing: Sequence[work.Task]) -> int:
    wanted = options.dataset_num_proc or os.cpu_count() or 1
    return max(1, min(wanted, sum(task.block.size for task in missing) // _BYTES_PER_WORKER))


def _most_cached(tokens: int) -> int:
    """Bytes that the cache may keep: this run's several times over (about 3.5 bytes a token), and some for small projects."""
    return max(2**30, 4 * 4 * tokens)


Load = Callable[[Sequence[tuple[int, work.Task]]], Iterator[tuple[int, work.Task, Tokens]]]


@contextmanager
def _made(cache: BlockCache, worker: work.Worker, settings: dict[str, Any], workers: int) -> Iterator[Load]:
    """How to get the tokens of blocks, in order: from the cache, after ``workers`` processes have put them there."""

    def here(tasks: Sequence[tuple[int, work.Task]]) -> Iterator[tuple[int, work.Task, Tokens]]:
        for number, task in tasks:
            yield number, task, _load(cache, worker, task)

    def elsewhere(tasks: Sequence[tuple[int, work.Task]]) -> Iterator[tuple[int, work.Task, Tokens]]:
        waiting: deque[tuple[int, work.Task, Future[None] | None]] = deque()
        for number, task in tasks:
            waiting.append((number, task, None if cache.has(task.key) else pool.submit(work.run, task)))
            if len(waiting) >= workers * _AHEAD:
                yield finish(*waiting.popleft())
        while waiting:
            yield finish(*waiting.popleft())

    def finish(number: int, task: work.Task, future: Future[None] | None) -> tuple[int, work.Task, Tokens]:
        try:
            if future is not None:
                future.result()
        except BrokenProcessPool:
            raise RegrowError(
                "A process that tokenizes was killed, perhaps for lack of memory.",
                "Run again with a smaller dataset_num_proc; what is done is kept.",
            ) from None
        return number, task, _load(cache, worker, task)

    if workers == 1:
        yield here
        return
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=work.start, initargs=(settings,))
    try:
        yield elsewhere
    finally:
        pool.shutdown(cancel_futures=True)


def _load(cache: BlockCache, worker: work.Worker, task: work.Task) -> Tokens:
    """A block's tokens; made now where the cache has none, or a damaged file."""
    found = cache.load(task.key)
    if found is None:
        worker.run(task)
        found = cache.load(task.key)
    if found is None:
        raise RegrowError("A block's tokens cannot be read back from the cache.", "Check the disk.")
    return found


def _write(source: Source, number: int, block: Block, tokens: Tokens, writer: TokenWriter, rejected: TextIO) -> int:
    """Put a block's rows into the artifact under their numbers at the source; returns its tokens."""
    for line, reason in tokens.rejected:
        _reject(source, source.row(block.line + line), reason, rejected)
    batch = tokens.batch
    if batch is None:
        return 0
    lines = batch["row"].to_numpy() + block.line
    rows = lines if source.numbers is None else np.asarray(source.numbers[lines])
    lengths = np.diff(batch["input_ids"].offsets.to_numpy())
    source.counts.update(rows=len(rows), tokens=int(lengths.sum()), trained_tokens=int(batch["loss_mask"].values.to_numpy().sum()))
    source.longest = max(source.longest, int(lengths.max()))
    batch = batch.set_column(batch.schema.get_field_index("row"), "row", pa.array(rows, pa.int64()))
    batch = batch.set_column(batch.schema.get_field_index("source"), "source", pa.array(np.full(len(rows), number, np.uint16)))
    try:
        writer.write(batch)
    except pa.ArrowInvalid:
        raise RegrowError(
            f"{source.label}: its rows have other parts than those of the datasets before it (two answers, or labels).",
            "Train on datasets of one kind.",
        ) from None
    return int(lengths.sum())


def _reject(source: Source, row: int, reason: str, stream: TextIO) -> None:
    source.counts["rejected"] += 1
    source.rejected[reason] += 1
    source.first_rejected.setdefault(reason, row)
    stream.write(json.dumps({"source": source.facts["name"], "file": source.facts["file"], "row": row, "reason": reason}) + "\n")


def _report(job: Job[TokenizeOptions], source: Source) -> None:
    for reason, count in sorted(source.rejected.items()):
        first = source.first_rejected[reason] + 1
        job.progress.say(
            f"{source.label}: {count} rows left out: {reason} (first: line or item {first}). All are in data/tokens/rejected.jsonl."
        )
    if not source.counts["rows"]:
        reasons = "; ".join(f"{reason} ({count} rows)" for reason, count in source.rejected.most_common(3)) or "it holds no rows"
        raise RegrowError(
            f"{source.label}: no row can be used: {reasons}.",
            f"Its dataset entry has type {source.facts['type']!r}; check that the columns fit it.",
        )


def _require_none_rejected(sources: Sequence[Source]) -> None:
    left_out = [(source, reason, count) for source in sources for reason, count in source.rejected.most_common()]
    if left_out:
        lines = [
            f"{source.label}: {count} rows: {reason} (first: line or item {source.first_rejected[reason] + 1})"
            for source, reason, count in left_out[:8]
        ]
        raise RegrowError(
            f"{sum(count for _, _, count in left_out)} rows cannot be used, and tokenize.strict is true:\n  " + "\n  ".join(lines),
            "Correct them, or set tokenize.strict: false to train on the others.",
        )

"""All sources, in config order, block by block: found in the cache or tokenized, then written and counted."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pipeline.digest import digest_file, digest_json
from pipeline.errors import RegrowError
from pipeline.options.dataset_types import kind_of
from pipeline.options.views import TokenizeOptions
from pipeline.stage import Job, Metrics
from pipeline.tokens import TokenWriter, id_dtype
from stages.tokenize import work
from stages.tokenize.blocks import split_blocks
from stages.tokenize.cache import BlockCache
from stages.tokenize.engine import EnginesDiffer, Name, choose_engine
from stages.tokenize.making import Planned, making
from stages.tokenize.source import COUNTED, Source, open_source, require_none_rejected

_LISTS = {"train": "datasets", "test": "test_datasets", "against": "dedupe.against"}

_BYTES_PER_WORKER = 8 * 2**20
"""A worker process takes a second to start; fewer bytes than these are not worth one."""


def tokenize_sources(job: Job[TokenizeOptions]) -> Metrics:
    """Write data/tokens from data/raw."""
    with BlockCache(_cache_folder(job)) as cache:
        engine, reason = _engine(job, cache)
        try:
            return _tokenize(job, cache, engine, reason)
        except EnginesDiffer as difference:
            for path in job.outputs["tokens"].path.iterdir():
                path.unlink()
            return _tokenize(job, cache, "tokenizers", f"fastokens gives other ids for {str(difference)[:40]!r}")


def _engine(job: Job[TokenizeOptions], cache: BlockCache) -> tuple[Name, str]:
    """The engine for this tokenizer and why; proved once, and remembered beside the blocks."""
    path = job.inputs["tokenizer"].path / "tokenizer.json"
    key = digest_json([digest_file(path), job.code])[:32]
    known = cache.read_note(key)
    if known is None:
        known = json.dumps(choose_engine(path))
        cache.write_note(key, known)
    name, reason = json.loads(known)
    return name, reason


def _cache_folder(job: Job[TokenizeOptions]) -> Path:
    """Where tokens of blocks are kept. A folder of the user's may hold other things: ours is inside it."""
    chosen = job.options.dataset_prepared_path
    return job.cache if chosen is None else Path(chosen).expanduser() / "regrow-blocks"


def _tokenize(job: Job[TokenizeOptions], cache: BlockCache, engine: Name, reason: str) -> Metrics:
    draft, tokenizer, options = job.outputs["tokens"], job.inputs["tokenizer"].path, job.options
    settings: dict[str, Any] = {"options": options, "tokenizer": tokenizer, "cache": cache.folder, "engine": engine}
    worker = work.Worker(**settings)
    raw = job.inputs["raw"]
    fetched = [facts | {"sha256": raw.files[facts["rows_file"]]["sha256"]} for facts in raw.content["sources"]]
    sources = [open_source(raw.path, facts, _type_name(options, facts["name"])) for facts in fetched]
    _open_formats(job, worker, sources)
    blocks = list(_plan(sources, {name: _entry_key(job, name, engine) for name in {source.facts["name"] for source in sources}}))
    missing = [block for block in blocks if not cache.has(block.task.key)]
    processes = _processes(options, missing)
    job.progress.say(
        f"Tokenizing with {engine} ({reason}), {len(blocks) - len(missing)} of {len(blocks)} blocks known, {processes} processes."
    )
    with ExitStack() as stack:
        writer = stack.enter_context(TokenWriter(draft.path, id_dtype(worker.encoder.vocab_size)))
        rejected = stack.enter_context((draft.path / "rejected.jsonl").open("w", encoding="utf-8"))
        progress = stack.enter_context(job.progress.task("tokenize", unit="rows", total=sum(block.task.block.lines for block in blocks)))
        make = stack.enter_context(making(cache, worker, settings, processes))
        for (number, source, task), tokens in make(blocks):
            added = source.write(number, task.block, tokens, writer, rejected)
            progress.advance(task.block.lines, tokens=added)
    for source in sources:
        for remark in source.remarks():
            job.progress.say(remark)
    if options.tokenize.strict:
        require_none_rejected(sources)
    totals: dict[str, Any] = {name: sum(source.counts[name] for source in sources) for name in (*COUNTED, "rejected")}
    described: dict[str, Any] = {"sources": [source.describe() for source in sources], **_what_labels_judge(options)}
    draft.describe(vocab_size=worker.encoder.vocab_size, **described, **totals)
    cache.prune((block.task.key for block in blocks), _most_cached(totals["tokens"]))
    return totals


def _open_formats(job: Job[TokenizeOptions], worker: work.Worker, sources: Iterable[Source]) -> None:
    """What cannot work, or may not do what is expected, is said before anything is done."""
    for name, path in {source.facts["name"]: source.facts["path"] for source in sources}.items():
        split, number = name.split("-")
        entry = f"{_LISTS[split]}[{int(number)}] ({path})"
        try:
            warnings: Sequence[str] = getattr(worker.format(name), "warnings", ())
        except RegrowError as error:
            raise RegrowError(f"{entry}: {error.message}", error.remedy) from error
        for warning in warnings:
            job.progress.say(f"warning: {entry}: {warning}")


def _type_name(options: TokenizeOptions, name: str) -> str | None:
    value = work.entry_of(options, name).type
    return value if value is None or isinstance(value, str) else "mapping"


def _what_labels_judge(options: TokenizeOptions) -> dict[str, str]:
    """``labels``: ``row`` where a row has one label, ``token`` where each trained token has one, nothing where there are none."""
    kind = kind_of(options.rl, options.reward_model, options.process_reward_model)
    return {"labels": "row" if kind == "feedback" else "token"} if kind in ("feedback", "steps") else {}


def _entry_key(job: Job[TokenizeOptions], name: str, engine: Name) -> str:
    """What decides the tokens of an entry's rows besides their bytes."""
    options = job.options.canonical()
    lists = {"train": options.pop("datasets"), "test": options.pop("test_datasets", None), "against": options.pop("dedupe").get("against")}
    split, number = name.split("-")
    entry = lists[split][int(number)]
    tokenizer = {path.name: digest_file(path) for path in sorted(job.inputs["tokenizer"].path.iterdir()) if path.name != "manifest.json"}
    return digest_json({"entry": entry, "options": options, "tokenizer": tokenizer, "code": job.code, "engine": engine})


def _plan(sources: Sequence[Source], keys: Mapping[str, str]) -> Iterator[Planned]:
    for number, source in enumerate(sources):
        name = source.facts["name"]
        for block in split_blocks(source.rows_file):
            yield Planned(number, source, work.Task(name, source.rows_file, block, digest_json([keys[name], block.digest])))


def _processes(options: TokenizeOptions, missing: Sequence[Planned]) -> int:
    wanted = options.dataset_num_proc or os.cpu_count() or 1
    return max(1, min(wanted, sum(block.task.block.size for block in missing) // _BYTES_PER_WORKER))


def _most_cached(tokens: int) -> int:
    """Bytes that the cache may keep: this run's several times over (about 3.5 bytes a token), and some for small projects."""
    return max(2**30, 4 * 4 * tokens)

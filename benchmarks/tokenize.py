"""tokenize beside a plain `datasets.map` with the same masks and beside bare `encode_batch`: one run, the same rows, ratios.

    python benchmarks/tokenize.py [--tokenizer data/tokenizer] [--rows 30000] [--save]

Every measurement is a process of its own. CPU seconds are those of it and its workers, without imports; they are the
figure to trust on a shared computer. Ids and masks of the three ways are compared.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Not the folder of this file, in which a module is called tokenize like one of Python's own.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import corpus, measuring  # noqa: E402
from benchmarks.measuring import Result, timed  # noqa: E402


def main() -> None:
    """Make the rows, measure, print."""
    parser = measuring.program(__doc__)
    parser.add_argument("--tokenizer", type=Path, default=Path("data/tokenizer"))
    parser.add_argument("--rows", type=int, default=30_000)
    parser.add_argument(
        "--memory-rows", type=int, default=100_000, help="peak memory is measured at so many rows and at four times as many"
    )
    arguments = measuring.parse(parser, "tokenize", MEASURES)
    if arguments is None:
        return
    measuring.require(parser, "--tokenizer", arguments.tokenizer, "tokenizer.json")
    with tempfile.TemporaryDirectory() as folder:
        lines = _report(arguments.tokenizer.resolve(), Path(folder), arguments.rows, arguments.memory_rows)
        measuring.publish(lines, arguments.save_as)


def _report(tokenizer: Path, folder: Path, rows: int, memory_rows: int) -> Iterator[str]:
    packages = ("tokenizers", "fastokens", "datasets", "transformers", "pyarrow")
    yield measuring.heading("tokenize: speed, memory and what an append costs", packages)
    yield from _speed("chat_template", corpus.write(folder / "chats.jsonl", corpus.chats(rows)), tokenizer, folder)
    yield from _speed("completion", corpus.write(folder / "documents.jsonl", corpus.documents(rows)), tokenizer, folder)
    yield from _turns(tokenizer, folder)
    yield from _append(tokenizer, folder, rows)
    yield from _memory(tokenizer, folder, memory_rows)


def _speed(kind: str, rows: Path, tokenizer: Path, folder: Path) -> Iterator[str]:
    shared = {"rows": str(rows), "tokenizer": str(tokenizer), "kind": kind}
    measured = {
        "regrow, 1 process": measure("regrow", **shared, processes=1, workspace=str(folder / f"{kind}-1")),
        "regrow, 2 processes": measure("regrow", **shared, processes=2, workspace=str(folder / f"{kind}-2")),
        "datasets.map with the same masks, 1 process": measure("datasets_map", **shared, processes=1, folder=str(folder / f"{kind}-map1")),
        "datasets.map with the same masks, 2 processes": measure(
            "datasets_map", **shared, processes=2, folder=str(folder / f"{kind}-map2")
        ),
        "bare encode_batch, one thread": measure("encode_batch", **shared),
    }
    ours = measured["regrow, 1 process"]
    yield f"\n## {kind}: {ours['rows']:,} rows, {ours['tokens']:,} tokens, engine {ours['engine']}\n"
    yield "| | tokens per CPU second | regrow with 1 process is | tokens/s (wall) | peak MB |\n|---|---|---|---|---|"
    for name, result in measured.items():
        speed = result["tokens"] / result["cpu"]
        ratio = ours["tokens"] / ours["cpu"] / speed
        yield f"| {name} | {speed:,.0f} | {ratio:.2f} x | {result['tokens'] / result['wall']:,.0f} | {result['peak_mb']:,} |"
    digests = {result["digest"] for result in measured.values() if result.get("digest")}
    yield f"\nIds and masks of all four are {'equal' if len(digests) == 1 else 'NOT EQUAL'}."


def _turns(tokenizer: Path, folder: Path) -> Iterator[str]:
    import random

    yield "\n## Cost of long conversations (80 characters a turn)\n"
    yield "| turns | rows | CPU microseconds a turn |\n|---|---|---|"
    for turns in (50, 100, 250, 500, 1000):
        draw, count = random.Random(turns), 200_000 // turns
        rows = corpus.write(folder / f"turns{turns}.jsonl", (corpus.conversation(draw, turns, 80 * turns) for _ in range(count)))
        result = measure(
            "regrow", rows=str(rows), tokenizer=str(tokenizer), kind="chat_template", processes=1, workspace=str(folder / f"t{turns}")
        )
        yield f"| {turns} | {count} | {1e6 * result['cpu'] / turns / count:.1f} |"


def _append(tokenizer: Path, folder: Path, rows: int) -> Iterator[str]:
    lines = (folder / "chats.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    first, whole = folder / "first.jsonl", folder / "whole.jsonl"
    first.write_text("".join(lines[: len(lines) * 99 // 100]), encoding="utf-8")
    whole.write_text("".join(lines), encoding="utf-8")
    shared = {"tokenizer": str(tokenizer), "kind": "chat_template", "processes": 1}
    measure("regrow", **shared, rows=str(first), workspace=str(folder / "first"), cache=str(folder / "shared-cache"))
    warm = measure("regrow", **shared, rows=str(whole), workspace=str(folder / "warm"), cache=str(folder / "shared-cache"))
    cold = measure("regrow", **shared, rows=str(whole), workspace=str(folder / "cold"))
    inserted = folder / "inserted.jsonl"
    inserted.write_text("".join([*lines[: rows // 2], lines[0], *lines[rows // 2 :]]), encoding="utf-8")
    middle = measure("regrow", **shared, rows=str(inserted), workspace=str(folder / "middle"), cache=str(folder / "shared-cache"))
    yield "\n## Appending 1 %\n"
    yield "| | blocks tokenized | of | CPU s | of a cold run |\n|---|---|---|---|---|"
    for name, result in (("cold", cold), ("1 % appended", warm), ("one row put into the middle", middle)):
        yield f"| {name} | {result['missing']} | {result['blocks']} | {result['cpu']:.2f} | {result['cpu'] / cold['cpu']:.1%} |"
    verdict = "equal to" if warm["artifact"] == cold["artifact"] else "DIFFERENT FROM"
    yield f"\nDigest of the artifact after the append: {verdict} the cold run's."


def _memory(tokenizer: Path, folder: Path, rows: int) -> Iterator[str]:
    yield "\n## Peak memory (short conversations)\n"
    yield "| rows | tokens | regrow, peak MB | CPU s |\n|---|---|---|---|"
    for count in (rows, 4 * rows):
        path = corpus.write(folder / f"memory{count}.jsonl", corpus.chats(count, median=5.2))
        result = measure(
            "regrow", rows=str(path), tokenizer=str(tokenizer), kind="chat_template", processes=1, workspace=str(folder / f"m{count}")
        )
        yield f"| {count:,} | {result['tokens']:,} | {result['peak_mb']:,} | {result['cpu']:.1f} |"
        path.unlink()


def measure(name: str, **settings: Any) -> Result:
    """Run one of :data:`MEASURES` in a process of its own."""
    return measuring.measure(__file__, name, **settings)


def regrow(rows: str, tokenizer: str, kind: str, processes: int, workspace: str, cache: str | None = None) -> Result:
    """Our tokenize stage on a raw artifact that holds these rows."""
    import shutil

    from pipeline.artifact import Draft, publish, seal
    from pipeline.options.views import RecipeOptions
    from pipeline.progress import Progress
    from pipeline.runner import execute
    from pipeline.tokens import TokenTable
    from stages.tokenize import STAGE, work  # noqa: F401  (imports are not what is measured)

    data = Path(workspace) / "data"
    for name in ("raw", "tokenizer"):
        draft = Draft(name, data / ".partial" / name)
        draft.path.mkdir(parents=True)
        if name == "raw":
            os.link(rows, draft.path / "rows.jsonl")
            facts = {"name": "train-00", "split": "train", "path": "rows.jsonl", "file": "rows.jsonl", "revision": None}
            draft.describe(sources=[facts | {"rows_file": "rows.jsonl", "numbers": None}])
        else:
            for path in Path(tokenizer).iterdir():
                if path.name != "manifest.json":
                    shutil.copyfile(path, draft.path / path.name)
            draft.describe()
        seal(draft, {})
        publish(draft, data / name)
    entry = {"path": "rows.jsonl", "type": kind}
    recipe = RecipeOptions.model_validate(
        {"base_model": "./base", "learning_rate": 1.0, "datasets": [entry], "dataset_num_proc": processes}
    )
    said: list[str] = []

    class Listening(Progress):
        def say(self, message: str) -> None:
            said.append(message)

    def run() -> Result:
        outputs, metrics = execute(
            STAGE,
            STAGE.options.model_validate(recipe.model_dump()),
            data=data,
            scratch=Path(workspace) / "scratch",
            sources=data / "sources",
            identity="benchmark",
            code="benchmark",
            cache=Path(cache or Path(workspace) / "cache"),
            progress=Listening(),
        )
        return {"rows": metrics["rows"], "tokens": metrics["tokens"], "artifact": outputs["tokens"].digest}

    result = timed(run)
    known, blocks = (int(word) for word in said[0].split("), ")[1].split(" blocks")[0].split(" of "))
    table = TokenTable(data / "tokens")
    digest = hashlib.sha256()
    for row in range(len(table)):
        digest.update(table.ids(row).astype("<i4").tobytes() + table.mask(row).tobytes())
    return result | {"engine": said[0].split()[2], "blocks": blocks, "missing": blocks - known, "digest": digest.hexdigest()}


def datasets_map(rows: str, tokenizer: str, kind: str, processes: int, folder: str) -> Result:
    """The usual way: load_dataset, map with the chat template, a mask from offsets, Arrow files."""
    import numpy as np
    from datasets import Dataset, disable_progress_bars, load_dataset
    from transformers import PreTrainedTokenizerFast

    disable_progress_bars()
    loaded = PreTrainedTokenizerFast.from_pretrained(tokenizer)
    column = "messages" if kind == "chat_template" else "text"
    header, end = "<|im_start|>assistant\n", "<|im_end|>"

    def spans(text: str) -> Iterator[tuple[int, int]]:
        at = text.find(header)
        while at >= 0:
            start = at + len(header)
            stop = text.index(end, start) + len(end)
            yield start, stop
            at = text.find(header, stop)

    def tokenize(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        values = batch[column]
        if kind == "completion":
            ids = [[*one, loaded.eos_token_id] for one in loaded(values, add_special_tokens=False)["input_ids"]]
            return {"input_ids": ids, "mask": [[1] * len(one) for one in ids]}
        texts = [loaded.apply_chat_template(messages, tokenize=False) for messages in values]
        encoded = loaded(texts, add_special_tokens=False, return_offsets_mapping=True)
        masks = []
        for text, offsets in zip(texts, encoded["offset_mapping"], strict=True):
            ends = np.asarray(offsets)[:, 1]
            starts = np.concatenate([[0], ends[:-1]])
            mask = np.zeros(len(ends), np.int8)
            for start, stop in spans(text):
                mask[np.searchsorted(ends, start, "right") : np.searchsorted(starts, stop, "left")] = 1
            masks.append(mask)
        return {"input_ids": encoded["input_ids"], "mask": masks}

    made: list[Dataset] = []

    def run() -> Result:
        raw = load_dataset("json", data_files=rows, split="train", cache_dir=folder)
        made.append(raw.map(tokenize, batched=True, num_proc=processes if processes > 1 else None, remove_columns=raw.column_names))
        return {"rows": len(made[0])}

    result = timed(run)
    digest, tokens = hashlib.sha256(), 0
    for row in made[0].with_format("numpy"):
        digest.update(row["input_ids"].astype("<i4").tobytes() + row["mask"].astype("u1").tobytes())
        tokens += len(row["input_ids"])
    return result | {"tokens": tokens, "digest": digest.hexdigest()}


def encode_batch(rows: str, tokenizer: str, kind: str) -> Result:
    """What `tokenizers` alone takes for texts that are rendered already: no reading, no masks, no writing."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    loaded = PreTrainedTokenizerFast.from_pretrained(tokenizer)
    values = [json.loads(line) for line in Path(rows).read_text(encoding="utf-8").split("\n") if line]
    texts = [
        loaded.apply_chat_template(value["messages"], tokenize=False) if kind == "chat_template" else value["text"] for value in values
    ]
    bare = Tokenizer.from_file(str(Path(tokenizer) / "tokenizer.json"))

    def run() -> Result:
        tokens = 0
        for start in range(0, len(texts), 1000):
            tokens += sum(len(encoding.ids) for encoding in bare.encode_batch(texts[start : start + 1000], add_special_tokens=False))
        return {"rows": len(texts), "tokens": tokens}

    return timed(run)


MEASURES: dict[str, Callable[..., Result]] = {"regrow": regrow, "datasets_map": datasets_map, "encode_batch": encode_batch}


if __name__ == "__main__":
    main()

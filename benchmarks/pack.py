"""pack beside TRL's `pack_dataset` (bfd) and first-fit in the sampler's order: bins over the lower bound, seconds, one run, ratios.

    python benchmarks/pack.py [--rows 100000 1000000 10000000] [--save]

Every measurement is a process of its own; seconds are CPU seconds of it, without imports and without drawing the lengths. TRL moves
the tokens too, which an index does not; it gets one column of int32 ids in memory, the least that training needs. It runs where these
are fewer than half a billion, first-fit up to 1,000,000 rows. trl is needed (`pip install 'regrow[dev]'`), for the comparison alone.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Not the folder of this file, in which a module is called tokenize like one of Python's own.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np  # noqa: E402

from benchmarks import measuring  # noqa: E402
from benchmarks.measuring import Result, timed  # noqa: E402

CAPACITIES = (2048, 4096, 8192)
KINDS = ("log-normal", "bimodal", "uniform", "short")
PEER_ROWS = 1_000_000
PEER_TOKENS = 500_000_000
MOST_ROWS = 200
GROUP = 100_000
HEADS = (
    "| lengths | bin | lower bound | regrow: bins | over the bound | full | s "
    "| TRL: bins | full | s | TRL / regrow | first-fit: bins | full |\n"
    f"|{'---|' * 13}"
)


def main() -> None:
    """Draw the lengths, measure, print."""
    parser = measuring.program(__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--stage-rows", type=int, default=1_000_000, help="rows of the whole stage, with their tokens")
    parser.add_argument("--note", default="", help="a sentence about the circumstances, for the report")
    if arguments := measuring.parse(parser, "pack", MEASURES):
        measuring.publish(_report(arguments.rows, arguments.stage_rows, arguments.note), arguments.save_as)


def measure(name: str, **settings: Any) -> Result:
    """In a process of its own."""
    return measuring.measure(__file__, name, **settings)


def _report(sizes: list[int], stage_rows: int, note: str) -> Iterator[str]:
    yield measuring.heading("pack: bins and seconds", ("numpy", "pyarrow", "trl", "datasets"))
    yield f"\n{note}" if note else ""
    yield (
        "\nregrow: over all rows, at most 200 a bin (the default), with the index laid out, written and read again. TRL: "
        '`pack_dataset(strategy="bfd")`, which packs 1,000 rows at a time. first-fit: in the order of the rows, 100,000 at a time, at most '
        "200 a bin, as Axolotl's sampler does; it is written for this comparison in Python, so its seconds are left out."
    )
    for rows in sizes:
        yield f"\n## {rows:,} rows\n"
        yield HEADS
        for kind in KINDS:
            for capacity in CAPACITIES:
                yield _line(kind, rows, capacity)
    yield from _stage(stage_rows)


def _line(kind: str, rows: int, capacity: int) -> str:
    shared = {"kind": kind, "rows": rows, "capacity": capacity}
    ours = measure("regrow", **shared)
    bound, tokens = ours["bound"], ours["tokens"]

    def full(bins: int) -> str:
        return f"{tokens / bins / capacity:.3%}"

    cells = [
        kind,
        f"{capacity:,}",
        f"{bound:,}",
        f"{ours['bins']:,}",
        f"{ours['bins'] / bound - 1:.4%}",
        full(ours["bins"]),
        f"{ours['cpu']:.2f}",
    ]
    if rows <= PEER_ROWS and tokens <= PEER_TOKENS:
        trl = measure("trl", **shared)
        cells += [f"{trl['bins']:,}", full(trl["bins"]), f"{trl['cpu']:.1f}", f"{trl['cpu'] / ours['cpu']:.0f} x"]
    else:
        cells += [""] * 4
    if rows <= PEER_ROWS:
        first = measure("first_fit", **shared)
        cells += [f"{first['bins']:,}", full(first["bins"])]
    else:
        cells += [""] * 2
    return f"| {' | '.join(cells)} |"


def _stage(rows: int) -> Iterator[str]:
    result = measure("stage", rows=rows)
    yield f"\n## The whole stage on {rows:,} rows, {result['tokens']:,} tokens\n"
    yield "| | CPU s |\n|---|---|"
    for name in (
        "pack: selection, bins, statistics, picture, digest, publication",
        "train: tokens and bins opened, digest verified, bins counted",
    ):
        yield f"| {name} | {result[name.partition(':')[0]]:.2f} |"
    yield f"\nPeak memory {result['peak_mb']:,} MB; the index takes {result['index_mb']:.0f} MB, the tokens {result['tokens_mb']:,.0f} MB."


def draw(kind: str, rows: int, capacity: int) -> np.ndarray:
    """Lengths, int64 ``[rows]``, seeded."""
    random = np.random.Generator(np.random.PCG64(0))
    if kind == "log-normal":  # conversations of about 440 tokens
        lengths = random.lognormal(5.6, 1, rows)
    elif kind == "bimodal":  # short answers and long documents, half of each
        lengths = np.where(random.random(rows) < 0.5, random.normal(200, 50, rows), random.normal(0.7 * capacity, 0.05 * capacity, rows))
    elif kind == "short":  # rows of similar length, about eight to a bin
        lengths = random.normal(capacity / 8, capacity / 64, rows)
    else:
        lengths = random.uniform(1, capacity, rows)
    return np.clip(lengths, 2, capacity).astype(np.int64)


def _regrow(kind: str, rows: int, capacity: int) -> Result:
    from pipeline.bins import Bins
    from pipeline.options.views import PackOptions
    from stages.pack.assign import training_bins
    from stages.pack.plan import lay_out
    from stages.pack.select import Spans
    from stages.pack.statistics import lower_bound

    lengths = draw(kind, rows, capacity)
    options = PackOptions.model_validate({"sequence_len": capacity, "sample_packing": True})
    spans = Spans(np.arange(rows), np.zeros(rows, np.int64), lengths)

    def work(spans: Spans = spans) -> Result:
        with tempfile.TemporaryDirectory() as folder:
            lay_out(spans, training_bins(options, spans.length)).save(Path(folder) / "train.arrow")
            bins = Bins.load(Path(folder) / "train.arrow")
            filled = bins.tokens_per_bin()
            assert filled.max() <= capacity and filled.sum() == spans.length.sum() and len(bins.row) == len(spans)
            return {"bins": len(bins)}

    work(spans.take(np.arange(9)))  # pyarrow imports pandas when it is first asked for an array
    return timed(work) | {"bound": lower_bound(lengths, capacity, MOST_ROWS), "tokens": int(lengths.sum())}


def _trl(kind: str, rows: int, capacity: int) -> Result:
    import pyarrow as pa
    from datasets import Dataset
    from trl.data_utils import pack_dataset

    lengths = draw(kind, rows, capacity)
    chunks = []
    for start in range(0, rows, GROUP):
        offsets = np.concatenate([[0], np.cumsum(lengths[start : start + GROUP])]).astype(np.int32)
        chunks.append(pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.zeros(offsets[-1], np.int32))))
    dataset = Dataset(pa.table({"input_ids": pa.chunked_array(chunks)}))
    return timed(lambda: {"bins": len(pack_dataset(dataset, capacity, "bfd", {"keep_in_memory": True}))})


def _first_fit(kind: str, rows: int, capacity: int) -> Result:
    lengths = draw(kind, rows, capacity)
    return timed(lambda: {"bins": sum(first_fit(lengths[start : start + GROUP].tolist(), capacity) for start in range(0, rows, GROUP))})


def first_fit(lengths: list[int], capacity: int) -> int:
    """Bins when every row goes into the first that has room. A tree of the largest room finds it."""
    leaves = 1 << (len(lengths) - 1).bit_length()
    room, held, opened = [0] * leaves + [capacity] * leaves, [0] * leaves, 0
    for node in range(leaves - 1, 0, -1):
        room[node] = max(room[2 * node], room[2 * node + 1])
    for length in lengths:
        node = 1
        while node < leaves:
            node = 2 * node if room[2 * node] >= length else 2 * node + 1
        number = node - leaves
        opened, held[number] = max(opened, number + 1), held[number] + 1
        room[node] = room[node] - length if held[number] < MOST_ROWS else 0
        while node > 1:
            node //= 2
            room[node] = max(room[2 * node], room[2 * node + 1])
    return opened


def _stage_times(rows: int) -> Result:
    from pipeline.artifact import open_artifact
    from pipeline.kept import KeptRows
    from pipeline.tokens import TokenWriter
    from stages.pack import STAGE
    from stages.train.data.corpus import open_corpus
    from tests.tiny import publish_artifact, run_stage

    random = np.random.Generator(np.random.PCG64(0))
    lengths = np.clip(random.lognormal(4.6, 0.8, rows), 4, 2048).astype(np.int64)
    ids = random.integers(0, 50_000, int(lengths.max()) + 1000).astype(np.uint16)

    def fill(folder: Path) -> None:
        with TokenWriter(folder, np.dtype(np.uint16)) as writer:
            for number, length in enumerate(lengths.tolist()):
                mask = np.zeros(length, np.uint8)
                mask[length // 2 :] = 1
                writer.add(ids[number % 1000 : number % 1000 + length], mask, number % 3, number)

    with tempfile.TemporaryDirectory() as folder:
        data, split = Path(folder) / "data", {"split": "train", "path": "a", "file": "a", "type": "chat_template"}
        publish_artifact(data, "tokens", fill, sources=[{"name": f"train-{number:02}", **split} for number in range(3)])
        publish_artifact(data, "dedupe", lambda target: KeptRows.all_of(rows).save(target / "index.arrow"))
        options = {"sequence_len": 2048, "sample_packing": True, "val_set_size": 1000}
        pack = timed(lambda: {"done": bool(run_stage(STAGE, Path(folder), options))})
        inputs = {name: open_artifact(data / name, verify=False) for name in ("tokens", "packed")}
        train = timed(lambda: {"done": bool(open_corpus(inputs))})
        sizes = {name: sum(path.stat().st_size for path in (data / name).iterdir()) / 2**20 for name in ("tokens", "packed")}
    facts = {"tokens": int(lengths.sum()), "index_mb": sizes["packed"], "tokens_mb": sizes["tokens"], "peak_mb": train["peak_mb"]}
    return {"pack": pack["cpu"], "train": train["cpu"]} | facts


MEASURES: dict[str, Callable[..., Result]] = {"regrow": _regrow, "trl": _trl, "first_fit": _first_fit, "stage": _stage_times}

if __name__ == "__main__":
    main()

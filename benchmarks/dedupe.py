"""dedupe beside the row-string method (exact) and datasketch (near): one run, the same rows, ratios, and truth that was put in.

    python benchmarks/dedupe.py [--tokenizer data/tokenizer] [--sizes 50000 100000 200000 400000] [--save]

Every measurement is a process of its own. CPU seconds are those of it and its threads, without imports and without making the rows;
they are the figure to trust on a shared computer. datasketch is needed (`pip install 'regrow[bench]'`), for the comparison alone.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

# Not the folder of this file, in which a module is called tokenize like one of Python's own.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np  # noqa: E402

from benchmarks import corpus, measuring  # noqa: E402
from benchmarks.measuring import Result, timed  # noqa: E402

NGRAM = 5
BANDS = ((0.7, 0.75), (0.75, 0.8), (0.8, 0.85), (0.85, 0.9), (0.9, 0.95), (0.95, 1.0))
SPLIT = [{"name": "train-00", "split": "train", "path": "rows", "file": "rows"}]


def main() -> None:
    """Make the rows, measure, print."""
    parser = measuring.program(__doc__)
    parser.add_argument("--tokenizer", type=Path, default=Path("data/tokenizer"))
    parser.add_argument("--sizes", type=int, nargs="+", default=[50_000, 100_000, 200_000, 400_000])
    parser.add_argument("--datasketch-rows", type=int, default=20_000)
    parser.add_argument("--exact-rows", type=int, default=1_000_000)
    parser.add_argument("--note", default="", help="a sentence about the circumstances, for the report")
    arguments = measuring.parse(parser, "dedupe", MEASURES)
    if arguments is None:
        return
    measuring.require(parser, "--tokenizer", arguments.tokenizer, "tokenizer.json")
    with tempfile.TemporaryDirectory() as folder:
        measuring.publish(report(arguments, Path(folder)), arguments.save_as)


def report(arguments: argparse.Namespace, folder: Path) -> Iterator[str]:
    """Lines of a Markdown report."""
    yield measuring.heading("dedupe: speed, recall, precision, memory and growth", ("numpy", "pyarrow", "datasketch"))
    yield f"\n{arguments.note}" if arguments.note else ""
    phrases = folder / "phrases.npy"
    measure("text", tokenizer=str(arguments.tokenizer.resolve()), target=str(phrases))
    yield from _exact(folder, phrases, arguments.sizes[0], arguments.exact_rows)
    yield from _growth(folder, phrases, arguments.sizes)
    yield from _truth(folder, phrases, arguments.sizes[0], arguments.datasketch_rows)


def _made(folder: Path, phrases: Path, rows: int, median: int = 220) -> Path:
    """A folder of tokens with so many rows, made once."""
    target = folder / f"rows-{rows}-{median}"
    if not target.exists():
        measure("rows", phrases=str(phrases), target=str(target), rows=rows, median=median)
    return target


def _exact(folder: Path, phrases: Path, rows: int, most: int) -> Iterator[str]:
    table = _made(folder, phrases, rows)
    strings, ours = measure("row_strings", tokens=str(table)), measure("exact", tokens=str(table))
    digests = measure("digests", tokens=str(table))
    large = measure("exact", tokens=str(_made(folder, phrases, most, 60)))
    yield f"\n## Exact duplicates: {rows:,} rows, {ours['tokens']:,} tokens\n"
    yield "| | rows per CPU second | regrow is | peak MB |\n|---|---|---|---|"
    speed = rows / ours["cpu"]
    both = rows / (ours["cpu"] + digests["cpu"])
    for name, own, ratio, peak in (
        ("regrow: digests read from data/tokens", speed, 1.0, ours["peak_mb"]),
        ("regrow, with the digests that tokenize makes", both, speed / both, digests["peak_mb"]),
        ("sha256 of str(row)", rows / strings["cpu"], speed * strings["cpu"] / rows, strings["peak_mb"]),
        (f"regrow, {most:,} short rows", most / large["cpu"], speed * large["cpu"] / most, large["peak_mb"]),
    ):
        yield f"| {name} | {own:,.0f} | {ratio:.1f} x | {peak:,} |"
    yield f"\nThe same {ours['removed']:,} rows go: {'yes' if ours['removed'] == strings['removed'] else 'NO'}. "
    yield f"With the making of digests counted, regrow is {both * strings['cpu'] / rows:.1f} x the row-string method."


def _growth(folder: Path, phrases: Path, sizes: Sequence[int]) -> Iterator[str]:
    yield "\n## Near duplicates: growth (threshold 0.8, 5-grams, 128 permutations)\n"
    yield "| rows | tokens | CPU s | rows per CPU second | wall s | peak MB | removed | pairs compared |\n|---|---|---|---|---|---|---|---|"
    for rows in sizes:
        found = measure("near", tokens=str(_made(folder, phrases, rows)), threshold=0.8)
        cells = (f"{rows:,}", f"{found['tokens']:,}", f"{found['cpu']:.1f}", f"{rows / found['cpu']:,.0f}", f"{found['wall']:.1f}")
        yield f"| {' | '.join(cells)} | {found['peak_mb']:,} | {found['removed']:,} | {found['compared']:,} |"


def _truth(folder: Path, phrases: Path, rows: int, fewer: int) -> Iterator[str]:
    for threshold in (0.7, 0.8):
        large = measure("near", tokens=str(_made(folder, phrases, rows)), threshold=threshold)
        ours = measure("near", tokens=str(_made(folder, phrases, fewer)), threshold=threshold)
        theirs = measure("datasketch", tokens=str(_made(folder, phrases, fewer)), threshold=threshold)
        yield f"\n## Recall and precision at threshold {threshold}\n"
        yield "Pairs put in whose true similarity is in each range, and the share of them of which not both rows stay."
        yield "Below the threshold that is because of other rows.\n"
        yield f"| similarity | pairs in {rows:,} rows | regrow | pairs in {fewer:,} rows | regrow | datasketch |\n|---|---|---|---|---|---|"
        for name in [f"{low:.2f} to {high:.2f}" for low, high in BANDS] + ["at or above the threshold"]:
            cells = [str(large["pairs"].get(name, 0)), _share(large, name)]
            yield f"| {name} | {' | '.join([*cells, str(ours['pairs'].get(name, 0)), _share(ours, name), _share(theirs, name)])} |"
        judged = ((f"regrow, {rows:,} rows", large), (f"regrow, {fewer:,} rows", ours), (f"datasketch, {fewer:,} rows", theirs))
        yield "\n| | precision | rows per CPU second | regrow is | peak MB |\n|---|---|---|---|---|"
        for name, found in judged:
            speed = found["rows"] / found["cpu"]
            ratio = ours["rows"] / ours["cpu"] / speed
            yield f"| {name} | {found['precision']:.4f} of {found['judged']:,} | {speed:,.0f} | {ratio:.1f} x | {found['peak_mb']:,} |"


def _share(found: Result, name: str) -> str:
    return f"{found['found'].get(name, 0) / found['pairs'][name]:.4f}" if found["pairs"].get(name) else ""


def measure(name: str, **settings: Any) -> Result:
    """In a process of its own."""
    return measuring.measure(__file__, name, **settings)


def text(tokenizer: str, target: str) -> Result:
    """Token ids of real text, one after the other."""
    from tokenizers import Tokenizer

    encoder, whole = Tokenizer.from_file(str(Path(tokenizer) / "tokenizer.json")), corpus.text(12_000_000)
    pieces = [whole[start : start + 100_000] for start in range(0, len(whole), 100_000)]
    ids = [np.asarray(encoding.ids, np.int32) for piece in pieces for encoding in encoder.encode_batch([piece], add_special_tokens=False)]
    np.save(target, np.concatenate(ids))
    return {}


def rows(phrases: str, target: str, rows: int, median: int) -> Result:
    """Rows of phrases of 8 to 24 tokens, log-normal in length. Every 20th repeats an earlier one, every 10th is an edited copy.

    Edits replace single tokens, so many that the similarity lies between 0.7 and 0.95. ``pairs.npy`` says which is a copy of which.
    """
    from pipeline.tokens import TokenWriter, id_dtype

    draw, stream = np.random.default_rng(rows), np.load(phrases)
    dtype = id_dtype(int(stream.max()) + 1)
    stream = stream.astype(dtype)
    lengths = np.clip(draw.lognormal(np.log(median), 0.7, rows), 24, 4000).astype(np.int64)
    made: list[np.ndarray] = []
    pairs = []
    Path(target).mkdir()
    with TokenWriter(Path(target), dtype) as writer:
        for number, length in enumerate(lengths.tolist()):
            if number > 200 and number % 20 == 7:
                row = made[int(draw.integers(len(made)))]
            elif number > 200 and number % 10 == 3:
                pairs.append((int(draw.integers(number)), number))
                row = _edited(made[pairs[-1][0]], draw, stream)
            else:
                starts = draw.integers(len(stream) - 24, size=length // 8 + 1)
                sizes = draw.integers(8, 25, size=len(starts))
                row = np.concatenate([stream[start : start + size] for start, size in zip(starts, sizes, strict=True)])[:length]
            made.append(row)
            writer.add(row, np.ones(len(row), np.uint8), 0, number)
    np.save(Path(target) / "pairs.npy", np.asarray(pairs))
    return {}


def _edited(row: np.ndarray, draw: np.random.Generator, stream: np.ndarray) -> np.ndarray:
    """One edit changes as many n-grams as an n-gram has tokens: (N - kn) / (N + kn) = similarity."""
    alike, windows = draw.uniform(0.7, 0.95), len(row) - NGRAM + 1
    edits = max(1, round(windows * (1 - alike) / (1 + alike) / NGRAM))
    copy = row.copy()
    copy[draw.choice(len(row), min(edits, len(row)), replace=False)] = stream[draw.integers(len(stream), size=min(edits, len(row)))]
    return copy


def exact(tokens: str) -> Result:
    """regrow's exact duplicates, from opening the tokens to the written index."""
    from pipeline.options.views import DedupeOptions

    return _stage(tokens, DedupeOptions(dataset_exact_deduplication=True))[0]


def near(tokens: str, threshold: float) -> Result:
    """regrow's near duplicates, and how good they are."""
    from pipeline.options.deduplication import HowRowsCompare, NearDuplicates
    from pipeline.options.views import DedupeOptions

    near = NearDuplicates(threshold=threshold, ngram=NGRAM, permutations=128, template_share=1)
    result, table, index = _stage(tokens, DedupeOptions(dedupe=HowRowsCompare(near=near)))
    gone = np.flatnonzero(~index.keep)
    sample = gone[np.linspace(0, len(gone) - 1, min(4000, len(gone))).astype(np.int64)].tolist()
    true = [_jaccard(table, row, int(index.duplicate_of[row])) >= threshold for row in sample]
    keep = index.keep.tolist()
    return (
        result
        | {"judged": len(true), "precision": sum(true) / len(true)}
        | _recall(tokens, table, threshold, lambda a, b: not (keep[a] and keep[b]))
    )


def _stage(tokens: str, options: Any) -> tuple[Result, Any, Any]:
    from pipeline.progress import Progress
    from pipeline.tokens import TokenTable
    from stages.dedupe.removal import remove_rows
    from stages.dedupe.roles import Roles

    kept = []
    len(TokenTable(Path(tokens)))  # so that what it imports is not measured

    def run() -> Result:
        table = TokenTable(Path(tokens))
        removal = remove_rows(options, table, Roles.of(table, SPLIT), Progress())
        removal.index.save(Path(tokens) / "index")
        kept.append((table, removal.index))
        compared = removal.near.compared if removal.near else 0
        return {"rows": len(table), "removed": int((~removal.index.keep).sum()), "compared": compared}

    result = timed(run)
    table, index = kept[0]
    return result | {"tokens": int(table.lengths.sum())}, table, index


def digests(tokens: str) -> Result:
    """The digests of rows, which tokenize makes as it writes them."""
    from pipeline.tokens import TokenTable, digest_row

    table = TokenTable(Path(tokens))
    return timed(lambda: {"rows": len({digest_row(table.ids(row), table.mask(row)) for row in range(len(table))})})


def row_strings(tokens: str) -> Result:
    """A set of SHA-256 of each row as Python text. Making Python lists of the rows is not measured."""
    from pipeline.tokens import TokenTable

    table = TokenTable(Path(tokens))
    rows = [{"input_ids": table.ids(row).tolist(), "labels": table.ids(row).tolist()} for row in range(len(table))]

    def run() -> Result:
        seen = {hashlib.sha256(str(row).encode()).hexdigest() for row in rows}
        return {"rows": len(rows), "removed": len(rows) - len(seen)}

    return timed(run)


def datasketch(tokens: str, threshold: float) -> Result:
    """MinHashLSH with its own choice of bands, each row asked for before it is added; n-grams as bytes, made outside of the clock."""
    from datasketch import MinHash, MinHashLSH  # type: ignore[import-not-found]

    from pipeline.tokens import TokenTable

    table = TokenTable(Path(tokens))
    grams = [[gram.tobytes() for gram in _windows(table.ids(row))] for row in range(len(table))]
    near: dict[int, list[int]] = {}

    def run() -> Result:
        index = MinHashLSH(threshold=threshold, num_perm=128)
        for row, own in enumerate(grams):
            signed = MinHash(num_perm=128, seed=1)
            signed.update_batch(own)
            if found := index.query(signed):
                near[row] = found
            index.insert(row, signed)
        return {"rows": len(grams), "removed": len(near)}

    result = timed(run)
    sample = sorted(near)[:: max(1, len(near) // 4000)]
    true = [any(_jaccard(table, row, other) >= threshold for other in near[row]) for row in sample]
    recall = _recall(tokens, table, threshold, lambda a, b: a in near.get(b, ()))
    return result | {"judged": len(true), "precision": sum(true) / len(true)} | recall


def _windows(ids: np.ndarray) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(np.asarray(ids), min(NGRAM, len(ids)))


def _jaccard(table: Any, one: int, other: int) -> float:
    """With Python's own sets, apart from the code that is measured."""
    left, right = ({tuple(gram) for gram in _windows(table.ids(row)).tolist()} for row in (one, other))
    return len(left & right) / len(left | right)


def _recall(tokens: str, table: Any, threshold: float, is_found: Callable[[int, int], bool]) -> Result:
    pairs: dict[str, int] = {}
    found: dict[str, int] = {}
    for one, other in np.load(Path(tokens) / "pairs.npy").tolist():
        alike = _jaccard(table, one, other)
        names = [f"{low:.2f} to {high:.2f}" for low, high in BANDS if low <= alike < high]
        for name in [*names, *(["at or above the threshold"] if alike >= threshold else [])]:
            pairs[name] = pairs.get(name, 0) + 1
            found[name] = found.get(name, 0) + is_found(one, other)
    return {"pairs": pairs, "found": found}


MEASURES: dict[str, Callable[..., Result]] = {
    "text": text,
    "rows": rows,
    "exact": exact,
    "near": near,
    "digests": digests,
    "row_strings": row_strings,
    "datasketch": datasketch,
}


if __name__ == "__main__":
    main()

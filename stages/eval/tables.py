"""Tables of the report that come from manifests: sources, what became of rows, packing, lineage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.artifact import Artifact

_FIRST_COUNTS = ("rows", "tokens", "trained_tokens")
_SPLIT_COUNTS = ("rows", "tokens", "trained_tokens", "longest")
_BIN_COUNTS = ("bins", "lower_bound_bins", "efficiency")
_LABELS = {
    "trained_tokens": "trained tokens",
    "lower_bound_bins": "fewest bins possible",
    "longest": "longest row",
    "efficiency": "capacity filled",
}


@dataclass(frozen=True)
class Table:
    """Column heads and rows of cells; ints and floats are formatted by the page, text is escaped by it."""

    heads: Sequence[str]
    rows: Sequence[Sequence[Any]]


def sources_table(sources: Iterable[Mapping[str, Any]]) -> Table:
    """One row per source with whatever counts its manifest entry has; counts by reason in one cell."""
    sources = list(sources)
    counts = {key for source in sources for key, value in source.items() if isinstance(value, int)} - {"slow_rows"}
    reasons = sorted({key for source in sources for key, value in source.items() if isinstance(value, Mapping)})
    columns = [*(key for key in _FIRST_COUNTS if key in counts), *sorted(counts - set(_FIRST_COUNTS))]
    heads = ["source", "split", *(_LABELS.get(key, key) for key in columns), *reasons]
    rows = [
        [origin(source), source["split"], *(source.get(key, "") for key in columns), *(by_reason(source.get(key)) for key in reasons)]
        for source in sources
    ]
    return Table(heads, rows)


def origin(source: Mapping[str, Any]) -> str:
    """The path as in params.yaml, with the file where that says more."""
    path, file = str(source["path"]), str(source["file"])
    return path if path.endswith(file) else f"{path} ({file})"


def by_reason(counts: Mapping[str, Any] | None) -> str:
    """``3 empty, 1 too long``, or ``none``."""
    return ", ".join(f"{count:,} {reason}" for reason, count in (counts or {}).items() if count) or "none"


def removal_table(dedupe: Mapping[str, Any], packed: Mapping[str, Any]) -> Table:
    """Rows that left between tokens and bins, each with its reason."""
    removed = [["dedupe", reason, count] for reason, count in dedupe.get("removed", {}).items() if count]
    dropped = [["pack", f"dropped: {reason}", count] for reason, count in packed.get("dropped", {}).items() if count]
    truncated = packed.get("truncated", {})
    cut = [["pack", f"cut to sequence_len, losing {truncated['tokens']:,} tokens", truncated["rows"]]] if truncated.get("rows") else []
    return Table(["stage", "what happened", "rows"], [*removed, *dropped, *cut])


def packing_table(packed: Mapping[str, Any]) -> Table:
    """Counts of the two splits side by side. Bins are about training: held-out rows are judged one by one."""
    splits = [split for split in ("train", "eval") if split in packed]
    counts = [[key, *(packed[split].get(key, "") for split in splits)] for key in _SPLIT_COUNTS]
    bins = [[key, *(packed[split].get(key, "") if split == "train" else "" for split in splits)] for key in _BIN_COUNTS]
    return Table(
        ["", *splits], [[_LABELS.get(key, key), *values] for key, *values in [*counts, *bins] if any(value != "" for value in values)]
    )


def fates_table(sources: Sequence[Mapping[str, Any]]) -> Table:
    """What became of the rows of each source, as the packed manifest counts them; empty where it does not."""

    def row(source: Mapping[str, Any]) -> list[Any]:
        dropped = {reason: counts["rows"] for reason, counts in source["dropped"].items()}
        cut, train, held_out = source["truncated"], source["train"], source["eval"]
        counts = [source["all"]["rows"], source["removed"]["rows"], by_reason(dropped), cut["rows"]]
        return [origin(source), *counts, train["rows"], train["tokens"], held_out["rows"]]

    heads = ["source", "rows", "duplicates", "dropped", "cut", "trained rows", "their tokens", "held-out rows"]
    return Table(heads, [row(source) for source in sources])


@dataclass(frozen=True)
class Ancestor:
    """An artifact and what it was made from: (name, digest, whether that is the artifact that was read here)."""

    name: str
    digest: str
    made_from: Sequence[tuple[str, str, bool]]


def lineage(inputs: Mapping[str, Artifact], models: Mapping[str, str]) -> list[Ancestor]:
    """From the sources' rows to the quantised models: every digest, and those that manifests recorded of what they were made from.

    An artifact that is not read here (data/raw) cannot disagree. ``models``: digests of the judged models' files.
    """
    digests = {name: artifact.digest for name, artifact in inputs.items()}

    def parents(artifact: Artifact) -> list[tuple[str, str, bool]]:
        return [(f"data/{name}", digest, digests.get(name, digest) == digest) for name, digest in sorted(artifact.inputs.items())]

    rows = [
        Ancestor(f"rows of {origin(source)}", source["sha256"], []) for source in inputs["tokens"].content["sources"] if "sha256" in source
    ]
    artifacts = [Ancestor(f"data/{name}", digests[name], parents(artifact)) for name, artifact in inputs.items()]
    quantised = [("data/quantized", digests["quantized"], True)]
    inside = [Ancestor(f"data/quantized/{name}", value, quantised) for name, value in models.items() if name not in ("base", "merged")]
    return [*rows, *artifacts, *inside]

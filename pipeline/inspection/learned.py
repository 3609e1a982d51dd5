"""What was learned, source by source: rows, tokens, how many of them are trained, and what became of the rows that are not there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.inspection.opened import Opened, label

_COUNTS = ("rows", "tokens", "trained_tokens")


def learned(opened: Opened) -> dict[str, Any]:
    """``sources``, in the order of the config, and ``total``; each with counts, share trained (0 to 1), longest row, dropped."""
    sources = [_of_source(facts) for facts in opened.sources]
    return {"sources": sources, "total": _total(sources)}


def _of_source(facts: Mapping[str, Any]) -> dict[str, Any]:
    names = {name: facts[name] for name in ("name", "split", "path", "file")}
    counts = {name: int(facts[name]) for name in _COUNTS}
    dropped = {reason: int(count) for reason, count in sorted(facts["rejected"].items())}
    return names | counts | {"share_trained": _share(counts), "longest": int(facts["longest"]), "dropped": dropped}


def _share(counts: Mapping[str, int]) -> float:
    return round(counts["trained_tokens"] / counts["tokens"], 6) if counts["tokens"] else 0.0


def _total(sources: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    counts = {name: sum(source[name] for source in sources) for name in _COUNTS}
    dropped: dict[str, int] = {}
    for source in sources:
        for reason, count in source["dropped"].items():
            dropped[reason] = dropped.get(reason, 0) + count
    longest = max((source["longest"] for source in sources), default=0)
    return counts | {"share_trained": _share(counts), "longest": longest, "dropped": dict(sorted(dropped.items()))}


def learned_json(opened: Opened) -> str:
    """The table as JSON."""
    return json.dumps(learned(opened), indent=2, ensure_ascii=False)


def print_table(opened: Opened) -> None:
    """The table for a terminal, or for a log: there it is as wide as it needs to be."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    found = learned(opened)
    table = Table("source", box=box.SIMPLE_HEAD, show_footer=len(found["sources"]) > 1)
    table.columns[0].footer, total = "all", _cells(found["total"])
    for title, footer in zip(("rows", "tokens", "trained", "share", "longest"), total, strict=False):
        table.add_column(title, footer, justify="right", no_wrap=True)
    table.add_column("dropped", total[-1])
    for facts in found["sources"]:
        table.add_row(label(facts), *_cells(facts))
    console = Console(highlight=False, markup=False)
    console = console if console.is_terminal else Console(highlight=False, markup=False, width=1000)
    console.print(table)


def _cells(facts: Mapping[str, Any]) -> list[str]:
    numbers = [f"{facts[name]:,}" for name in _COUNTS]
    dropped = "\n".join(f"{count:,} {reason}" for reason, count in facts["dropped"].items())
    return [*numbers, f"{facts['share_trained']:.1%}", f"{facts['longest']:,}", dropped or "none"]

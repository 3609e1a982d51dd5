"""What `regrow reproduce` prints."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.reproduction.compare import DID_NOT_RUN, DIFFERS, EXCUSED, FOLLOWS, IDENTICAL, NOTHING
from pipeline.reproduction.reproduce import Reproduction


def lines(found: Reproduction) -> Iterator[str]:
    """The table, below each stage that differs where, and one line that sums up."""
    yield f"{'stage':<10} {'level':<6} {'verdict':<24} {'compared with':<24} {'digest':<16} {'seconds':>8}"
    for verdict in found.verdicts:
        seconds = "" if verdict.seconds is None else f"{verdict.seconds:.1f}"
        row = f"{verdict.stage:<10} {verdict.level:<6} {verdict.verdict:<24} {verdict.compared:<24} {verdict.digest[:16]:<16} {seconds:>8}"
        yield row.rstrip()
        yield from (f"    {line}" for line in verdict.lines)
    yield ""
    yield from found.notes
    yield _summary(found)
    if found.kept:
        yield f"The clone is left in {found.kept}."


def _summary(found: Reproduction) -> str:
    by = {
        kind: [v.stage for v in found.verdicts if v.verdict == kind]
        for kind in (IDENTICAL, DIFFERS, EXCUSED, FOLLOWS, NOTHING, DID_NOT_RUN)
    }
    levels = sorted({v.level for v in found.verdicts if v.verdict == IDENTICAL})
    parts = [f"{len(by[IDENTICAL])} of {len(found.verdicts)} stages are bit-identical" + (f" ({', '.join(levels)})" if levels else "")]
    parts += [f"{kind}: {', '.join(stages)}" for kind, stages in by.items() if stages and kind != IDENTICAL]
    return "; ".join(parts) + "."

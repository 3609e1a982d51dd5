"""The report to read: one HTML file that needs no network. Times and names of this computer are not in it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import SequenceMatcher
from html import escape
from pathlib import Path
from typing import Any

from pipeline.kept import EXACT, NEAR, OVERLAP
from stages.dedupe.report import Report

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: .6rem 0 1.6rem; }
td, th { padding: .15rem .8rem .15rem 0; text-align: left; vertical-align: top; }
td.number { text-align: right; font-variant-numeric: tabular-nums; } th { border-bottom: 1px solid #bbb; font-weight: 600; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem; margin: .3rem 0 1.6rem; }
.pair > div { border: 1px solid #ccc; border-radius: 4px; padding: .6rem; white-space: pre-wrap; overflow-wrap: anywhere; }
.place { color: #666; font-size: 13px; } mark { background: #ffe08a; } .cut { color: #999; }
"""
_WORDS = 2000
_CONTEXT = 120
_MEANING = {
    EXACT: "Token ids and masks are equal.",
    NEAR: "The share is that of n-grams which both rows have, among those which either has.",
    OVERLAP: "The share is that of the n-grams of one row which the other has: of the row of which it is more.",
}


def page(report: Report, facts: Mapping[str, Any], tokenizer: Path) -> str:
    """The whole page. ``facts``: the report's; ``tokenizer``: the folder of the one that made the tokens."""
    body = "\n".join([*_summary(facts), *_contamination(facts.get("against")), *_examples(report, _Texts(report, tokenizer))])
    head = f'<meta charset="utf-8"><title>Duplicates</title><style>{_STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n{body}\n</body></html>\n'


def _summary(facts: Mapping[str, Any]) -> Iterator[str]:
    yield f"<h1>Duplicates</h1><p>{facts['kept']:,} of {facts['rows']:,} rows stay.</p>"
    yield _table(("rows", "given", "kept"), [(name, found["rows"], found["kept"]) for name, found in facts["roles"].items()])
    if facts["sources"]:
        yield "<h2>What was removed</h2>"
        cells = [(item["reason"], item["removed"], item["stays"], item["rows"]) for item in facts["sources"]]
        yield _table(("reason", "removed from", "because of a row of", "rows"), cells)
    if "near" in facts and facts["near"]["clusters"]:
        yield f"<h2>Clusters of near duplicates</h2><p>Similarity {facts['near']['threshold']:g} or more.</p>"
        yield _table(("rows in a cluster", "clusters"), list(facts["near"]["clusters"].items()))


def _contamination(against: Mapping[str, Any] | None) -> Iterator[str]:
    if against is None:
        return
    limits = f"Compared by {against['ngram']}-grams; a training row goes from a share of {against['limit']:g} on."
    yield f"<h2>Rows held apart</h2><p>{limits}</p>"
    keys = ("source", "rows", "covered", "overlapping", "training_rows_removed", "mean_share_found")
    yield _table((key.replace("_", " ") for key in keys), ([found[key] for key in keys] for found in against["sources"]))
    if against["rows"]:
        shares = ("share_found", "share_of_it_in_nearest", "share_of_nearest_in_it", "training_rows_removed")
        cells = ([_place(found), _place(found["nearest"]), *(found[key] for key in shares)] for found in against["rows"][:20])
        names = ("row", "nearest training row", "found in training rows", "of it in that row", "of that row in it", "rows removed")
        yield _table(names, cells)


def _examples(report: Report, texts: _Texts) -> Iterator[str]:
    marked = "What only one of them has is marked. Rows are numbered from 0."
    yield f"<h2>Examples</h2><p>On the left the row that was removed, on the right the row because of which. {marked}</p>"
    for reason, rows in report.examples():
        if rows:
            yield f"<h3>{escape(reason)}</h3><p>{escape(_MEANING[reason])}</p>"
        for row in rows:
            other = int(report.index.duplicate_of[row])
            yield f'<div class="place">share {report.index.similarity[row]:.3f}</div><div class="pair">'
            for number, text in zip((row, other), _beside(texts.of(row), texts.of(other)), strict=True):
                yield f'<div><div class="place">{escape(_place(report.place(number)))}</div>{text}</div>'
            yield "</div>"


def _place(found: Mapping[str, Any]) -> str:
    return f"{found['source']}, row {found['row']}"


class _Texts:
    """Rows as text, special tokens and all."""

    def __init__(self, report: Report, tokenizer: Path) -> None:
        from tokenizers import Tokenizer

        self._tokens, self._tokenizer = report.tokens, Tokenizer.from_file(str(tokenizer / "tokenizer.json"))

    def of(self, row: int) -> str:
        parts = [self._tokens.ids(row), *([self._tokens.rejected_ids(row)] if self._tokens.paired else [])]
        return "\n\n".join(self._tokenizer.decode(ids.tolist(), skip_special_tokens=False) for ids in parts)


def _beside(one: str, other: str) -> tuple[str, str]:
    """Both texts as HTML. Of long stretches that are equal only the ends are shown, and of long texts the beginning."""
    left, right = _words(one), _words(other)
    shown: tuple[list[str], list[str]] = ([], [])
    for kind, a, b, c, d in SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        for side, text in zip(shown, ("".join(left[a:b]), "".join(right[c:d])), strict=True):
            side.append(_shortened(text) if kind == "equal" else f"<mark>{_shortened(text)}</mark>" if text else "")
    return "".join(shown[0]), "".join(shown[1])


def _words(text: str) -> list[str]:
    words = re.findall(r"\w+|\s+|[^\w\s]", text)
    return words if len(words) <= _WORDS else [*words[:_WORDS], " …"]


def _shortened(text: str) -> str:
    if len(text) <= 3 * _CONTEXT:
        return escape(text)
    cut = f'<span class="cut"> … {len(text) - 2 * _CONTEXT} characters … </span>'
    return escape(text[:_CONTEXT]) + cut + escape(text[-_CONTEXT:])


def _table(names: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join(f"<tr>{''.join(_cell(cell) for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return f"<td>{escape(value)}</td>"
    return f'<td class="number">{value:,}</td>' if isinstance(value, int) else f'<td class="number">{value:.3f}</td>'

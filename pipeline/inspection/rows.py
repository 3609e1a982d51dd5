"""Rows shown: as text with the trained part standing out, or as JSON Lines of ids and labels."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from pipeline.inspection.characters import Segment, TokenText, visible
from pipeline.inspection.opened import Opened, label, tokenizer_of

_IGNORED = -100
_STYLES = {(True, False): "bold green", (True, True): "bold green underline", (False, False): "dim", (False, True): "dim underline"}


def records(opened: Opened, numbers: Iterable[int]) -> Iterator[str]:
    """A line of JSON per row.

    ``number`` (row of the artifact), ``source``, ``file``, ``row`` (position in that file), ``input_ids``, ``labels``
    (-100 where masked). A preference row has ``rejected_input_ids`` and ``rejected_labels`` too; a row judged as a whole has
    its ``label``; in a row with a label per trained token these stand in ``labels``. A prompt that the model answers itself has its
    columns in ``reference``.
    """
    each_token = opened.artifact.content.get("labels") == "token"
    for number in numbers:
        yield json.dumps(_record(opened, number, each_token))


def _record(opened: Opened, number: int, each_token: bool) -> dict[str, Any]:
    table, facts = opened.table, opened.sources[int(opened.table.source[number])]
    ids, mask = table.ids(number), table.mask(number)
    record = {"number": number, "source": facts["name"], "file": facts["file"], "row": int(table.row[number])}
    record |= {"input_ids": ids.tolist(), "labels": _labels(ids, mask)}
    if table.paired:
        ids, mask = table.rejected_ids(number), table.rejected_mask(number)
        record |= {"rejected_input_ids": ids.tolist(), "rejected_labels": _labels(ids, mask)}
    if table.labelled:
        given = table.labels(number)
        record |= {"labels": _spread(given, table.mask(number))} if each_token else {"label": int(given[0])}
    if table.referenced:
        record |= {"reference": table.reference(number)}
    return record


def _labels(ids: np.ndarray, mask: np.ndarray) -> list[int]:
    labels: list[int] = np.where(mask != 0, ids.astype(np.int64), _IGNORED).tolist()
    return labels


def _spread(given: np.ndarray, mask: np.ndarray) -> list[int]:
    """Labels ``[tokens]`` from one per trained token."""
    labels = np.full(len(mask), _IGNORED)
    labels[np.flatnonzero(mask)] = given
    return [int(label) for label in labels]


def show(opened: Opened, numbers: Iterable[int]) -> None:
    """Print rows as text, as :class:`Screen` does."""
    text, screen = TokenText(tokenizer_of(opened)), Screen()
    for number in numbers:
        for title, ids, mask in _parts(opened, number):
            screen.put(title, list(text.segments(ids, mask)))


class Screen:
    """Shows text on standard output.

    On a terminal trained text is green and the rest dim, special tokens are underlined. Elsewhere trained text stands in
    ``⟦`` and ``⟧``. Line ends are marked ``↵``, control characters are pictures (``␉`` is a tab), a space at the border of
    trained text is ``␣``.
    """

    def __init__(self) -> None:
        from rich.console import Console

        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="backslashreplace")  # a terminal of another encoding than UTF-8
        self._console = Console(highlight=False, soft_wrap=True)
        self._colours = self._console.is_terminal and not self._console.no_color

    def put(self, title: str, segments: list[Segment], facts: Iterable[str] = ()) -> None:
        """A title, lines of facts, and the text."""
        from rich.text import Text

        self._console.print(Text(title, style="bold"))
        self.lines(facts)
        body = _coloured(segments) if self._colours else Text(_bracketed(segments))
        self._console.print(body, end="\n" if body.plain.endswith("\n") else "\n\n")

    def lines(self, lines: Iterable[str]) -> None:
        """Lines without any style."""
        from rich.text import Text

        for line in lines:
            self._console.print(Text(line))


def _parts(opened: Opened, number: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(title, ids, mask) of what a row holds: itself, or the two answers of a preference row."""
    table, facts = opened.table, opened.sources[int(opened.table.source[number])]
    name = f"row {number} · {label(facts)}, row {int(table.row[number])}"
    ids, mask = table.ids(number), table.mask(number)
    labels = f" · label {' '.join(map(str, table.labels(number).tolist()))}" if table.labelled else ""
    yield f"{name}{' · chosen' if table.paired else ''} · {_size(mask)}{labels}", ids, mask
    if table.paired:
        ids, mask = table.rejected_ids(number), table.rejected_mask(number)
        yield f"{name} · rejected · {_size(mask)}", ids, mask


def _size(mask: np.ndarray) -> str:
    return f"{len(mask)} tokens, {int(np.count_nonzero(mask))} trained"


def _coloured(segments: list[Segment]) -> Any:
    from rich.text import Text

    return Text.assemble(*((_shown(segments, at), _STYLES[segment.trained, segment.special]) for at, segment in enumerate(segments)))


def _bracketed(segments: list[Segment]) -> str:
    """Trained text in brackets, which neighbouring segments share."""
    found = []
    for at, segment in enumerate(segments):
        opens = segment.trained and (at == 0 or not segments[at - 1].trained)
        closes = segment.trained and (at + 1 == len(segments) or not segments[at + 1].trained)
        found.append(f"{'⟦' if opens else ''}{_shown(segments, at)}{'⟧' if closes else ''}")
    return "".join(found)


def _shown(segments: list[Segment], at: int) -> str:
    """The text of a segment; a space where trained text begins or ends would not be seen."""
    text = segments[at].text
    if at and segments[at - 1].trained != segments[at].trained and text.startswith(" "):
        text = f"␣{text[1:]}"
    if at + 1 < len(segments) and segments[at + 1].trained != segments[at].trained and text.endswith(" "):
        text = f"{text[:-1]}␣"
    return visible(text)

"""Where the text of a row stands in the fields of the source row it was made from.

A format may put a field anywhere between words of its own, cut it, or leave it out. So nothing is assumed of formats: a field's
place is where its text occurs literally, and text that occurs nowhere has none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

_SHORTEST_PART = 8
"""Characters. Shorter pieces of a field that was cut are found everywhere."""


@dataclass(frozen=True)
class Place:
    """A stretch of a field that occurs in a row's text, in characters.

    Attributes:
        field: its path in the row (``messages[1].content``).
        start: first character within the field.
        at: first character within the text.
        length: characters.
    """

    field: str
    start: int
    at: int
    length: int

    @property
    def end(self) -> int:
        """The character after its last within the text."""
        return self.at + self.length

    def within(self, start: int, end: int) -> Place | None:
        """The part of it between two characters of the text."""
        first, last = max(self.at, start), min(self.end, end)
        return Place(self.field, self.start + first - self.at, first, last - first) if first < last else None


def find_places(text: str, runs: Sequence[tuple[int, int]], row: Any) -> list[Place]:
    """Where the fields of ``row`` stand in ``text``, in order; no two places overlap.

    Longer fields choose first, so that a short one is not found inside of them; equal ones take their turns.

    Args:
        text: of the whole row.
        runs: (start, end) of its plain text between special tokens, in which parts of cut fields are looked for.
        row: as it was read.
    """
    leaves = list(_leaves(row))
    taken: list[Place] = []
    for field, value in sorted(leaves, key=lambda leaf: -len(leaf[1])):
        place = _whole(text, field, value, taken)
        if place is not None:
            taken.append(place)
    placed = {place.field for place in taken}
    for field, value in leaves:
        if field not in placed:
            taken += _parts(text, runs, field, value, taken)
    return sorted(taken, key=lambda place: place.at)


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """(path, text) of every text in a row, in its order."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _leaves(item, f"{path}[{number}]")


def _whole(text: str, field: str, value: str, taken: Sequence[Place]) -> Place | None:
    """The first place of the field's text that no other has; without the spaces around it if formats removed those."""
    for candidate in dict.fromkeys((value, value.strip())):
        start, at = value.find(candidate), text.find(candidate) if candidate else -1
        while at >= 0:
            if not _overlaps(taken, at, at + len(candidate)):
                return Place(field, start, at, len(candidate))
            at = text.find(candidate, at + 1)
    return None


def _parts(text: str, runs: Sequence[tuple[int, int]], field: str, value: str, taken: Sequence[Place]) -> list[Place]:
    """Plain stretches of the text that occur in the field: it was cut, or changed around them."""
    found: list[Place] = []
    for first, last in runs:
        piece = text[first:last].strip()
        at = text.find(piece, first)
        if len(piece) >= _SHORTEST_PART and not _overlaps(taken, at, at + len(piece)) and (start := value.find(piece)) >= 0:
            found.append(Place(field, start, at, len(piece)))
    return found


def _overlaps(taken: Sequence[Place], start: int, end: int) -> bool:
    return any(place.at < end and start < place.end for place in taken)

"""A source with several files, and the patterns that name some of them."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import RegrowError
from stages.fetch.locate import listed


@dataclass(frozen=True)
class Layout:
    """Files by split.

    Attributes:
        splits: names of files, in the order of their rows.
        told: whether the source itself tells its splits apart; if not, all files are the split train.
        unused: files of rows that belong to no split.
    """

    splits: Mapping[str, tuple[str, ...]]
    told: bool = True
    unused: tuple[str, ...] = ()


@dataclass(frozen=True)
class Folder:
    """A source with several files: their names, what reads one of them, and how messages name it."""

    names: tuple[str, ...]
    read: Callable[[str], Path]
    label: str

    def json(self, name: str) -> dict[str, Any]:
        """The object that a file holds; an empty one where there is no such file.

        Raises:
            RegrowError: it holds something else.
        """
        try:
            value = json.loads(self.read(name).read_text(encoding="utf-8-sig", errors="replace")) if name in self.names else {}
        except (ValueError, RecursionError) as error:
            raise RegrowError(f"{self.label}: {name} is not valid JSON: {error}.", "Save or download it again.") from None
        if not isinstance(value, dict):
            raise RegrowError(f"{self.label}: {name} is not a JSON object.", "Save or download it again.")
        return value

    def under(self, start: str) -> tuple[str, ...]:
        """Names that begin so."""
        return tuple(name for name in self.names if name.startswith(start))


def plain(pattern: str) -> str:
    """A pattern without ``.`` and ``..``; the slash that makes it a folder stays."""
    return posixpath.normpath(pattern) + ("/" if pattern.endswith("/") else "")


def matching(names: Sequence[str], patterns: Sequence[str], what: str) -> tuple[str, ...]:
    """Names that patterns match, in the order of the patterns: ``*`` and ``?`` stay inside a folder, ``**`` does not.

    Raises:
        RegrowError: a pattern matches nothing, or is none; ``what`` has it.
    """
    found: dict[str, None] = {}
    known = frozenset(names)
    for pattern in patterns:
        place = plain(pattern)
        compiled = _compiled(place, what)
        matches = [place] if place in known else [name for name in names if compiled.fullmatch(name)]
        if not matches:
            raise RegrowError(f"{what}: no file matches {pattern!r}.", f"There are {listed(names)}.")
        found |= dict.fromkeys(matches)
    return tuple(found)


_WILD = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def _compiled(pattern: str, what: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[!?[^\]]+\])", pattern + ("**" if pattern.endswith("/") else ""))
    try:
        return re.compile("".join((_WILD.get(part) or _set(part)) if index % 2 else re.escape(part) for index, part in enumerate(parts)))
    except re.error as error:
        raise RegrowError(f"{what}: {pattern!r} is no pattern: {error}.", "A set is [abc], [a-z] or [!abc].") from None


def _set(part: str) -> str:
    inside = part[1:-1].replace("\\", "\\\\").replace("[", "\\[").replace("^", "\\^")
    return f"[^/{inside[1:]}]" if inside.startswith("!") else f"[{inside}]"

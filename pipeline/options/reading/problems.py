"""What can be wrong with an option, and how that is said."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import RegrowError
from pipeline.options.reading.source import Place, Source
from pipeline.source import without_secrets

MISSING = object()
"""Stands for the value of a key that the file does not hold."""

MOST_SHOWN = 100
"""Problems of one message. More are those of a file that is no config."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong: where, the value found there, what is wrong with it, and what would work.

    ``breaks_model``: the value cannot be held by the option's model.
    """

    path: Place
    found: Any
    wrong: str
    works: str
    breaks_model: bool = False

    def render(self, source: Source) -> str:
        """``params.yaml:LINE: key.path: value found — what is wrong; what would work``."""
        old = source.old_names.get(self.path)
        key = dotted(self.path) if old is None else f"{dotted(old)} (now {dotted(self.path)})"
        return f"{source.name}:{source.line(self.path)}: {key}: {show(self.found)} — {self.wrong}; {self.works}"


def raise_all(problems: Sequence[Problem], source: Source) -> None:
    """Nothing, or one error that lists every problem in the order of the file."""
    if problems:
        ordered = sorted(problems, key=lambda problem: source.line(problem.path))
        lines = list(dict.fromkeys(problem.render(source) for problem in ordered))
        rest = [f"... and {len(lines) - MOST_SHOWN} more problems."] if len(lines) > MOST_SHOWN else []
        raise RegrowError("\n".join(lines[:MOST_SHOWN] + rest))


def dotted(path: Place) -> str:
    """``datasets.0.type``."""
    return ".".join(str(part) for part in path)


def show(value: Any) -> str:
    """A value as a message shows it: as YAML would have it on one line, at most 80 characters."""
    if value is MISSING:
        return "missing"
    text = without_secrets(json.dumps(value, ensure_ascii=False, default=str))
    return text if len(text) <= 80 else text[:77] + "..."

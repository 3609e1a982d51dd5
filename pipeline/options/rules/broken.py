"""What a rule says when a file breaks it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.options.reading.source import Place
from pipeline.options.views import RecipeOptions


@dataclass(frozen=True)
class Broken:
    """A rule that a file breaks. The message points at the first of ``keys`` that the file holds."""

    keys: tuple[Place, ...]
    wrong: str
    works: str


Rule = Callable[[RecipeOptions], Iterator[Broken]]


def broken(keys: str, wrong: str, works: str) -> Broken:
    """``keys``: dotted places, separated by spaces, the one to point at first."""
    return Broken(tuple(_path(key) for key in keys.split()), wrong, works)


def _path(key: str) -> Place:
    return tuple(int(part) if part.isdigit() else part for part in key.split("."))


def listed(options: RecipeOptions, place: str) -> Sequence[Any]:
    """The list at a dotted place; empty where it is not set, and where it is no list."""
    value: Any = options
    for key in place.split("."):
        value = getattr(value, key)
    return value if isinstance(value, list) else []


def is_set(options: RecipeOptions, *keys: str) -> bool:
    """Whether the file itself gives all of ``keys``."""
    return options.model_fields_set.issuperset(keys)

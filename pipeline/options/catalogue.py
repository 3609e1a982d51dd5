"""All options as one list: where each stands, what is known of it, who reads it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pipeline.options.pretraining import PretrainingEntry
from pipeline.options.reading.wording import models_in, takes
from pipeline.options.schema import Group, OptionFacts, Status, facts_of
from pipeline.options.views import VIEWS, RecipeOptions

CONFIGURE = "configure"
"""Reads the whole file, and is the only reader of options that are part of no stage's view."""


@dataclass(frozen=True)
class Option:
    """One option. ``place`` is dotted, without list indexes: ``datasets.type.field_prompt``."""

    place: str
    field: FieldInfo
    section: str
    readers: tuple[str, ...]

    @property
    def name(self) -> str:
        """The key itself."""
        return self.place.rpartition(".")[2]

    @property
    def facts(self) -> OptionFacts:
        """Status and what belongs to it."""
        return facts_of(self.field)

    @property
    def type(self) -> str:
        """What values it takes, in words."""
        return takes(self.field)

    @property
    def reruns(self) -> tuple[str, ...]:
        """Stages whose identity holds the value. What follows them reruns if their output changes."""
        return self.readers if self.facts.is_read and not self.facts.execution and self.readers != (CONFIGURE,) else ()


@cache
def catalogue() -> dict[str, Option]:
    """Every option by its place, capability by capability."""
    sections, fields = _sections(), RecipeOptions.model_fields
    return {option.place: option for name in in_order() for option in _options(name, fields[name], sections[name])}


@cache
def in_order() -> tuple[str, ...]:
    """Top-level options, capability by capability, in the order of RecipeOptions' groups."""
    sections = _sections()
    ranks = {section: rank for rank, section in enumerate(dict.fromkeys(sections.values()))}
    return tuple(sorted(sections, key=lambda name: ranks[sections[name]]))


def _options(place: str, field: FieldInfo, section: str) -> Iterator[Option]:
    yield Option(place, field, section, _readers(place))
    for inner in models_in(field.annotation):
        for name, nested in inner.model_fields.items():
            if _is_told_here(place, inner, name):
                yield from _options(f"{place}.{name}", nested, inner.__module__)


def _is_told_here(place: str, model: type[BaseModel], name: str) -> bool:
    """Entries of other lists have the options of those of `datasets`, which are not told again."""
    own = issubclass(model, PretrainingEntry) and name in model.__annotations__
    return place not in ("test_datasets", "dedupe.against", "pretraining_dataset.type") and (own or not issubclass(model, PretrainingEntry))


def _readers(place: str) -> tuple[str, ...]:
    """Stages whose view has the option, or holds it inside something that it reads."""
    path = place.split(".")
    return tuple(stage for stage, view in VIEWS.items() if _has(view, path)) or (CONFIGURE,)


def _has(model: type[BaseModel], path: list[str]) -> bool:
    if path[0] not in model.model_fields:
        return False
    inner = models_in(model.model_fields[path[0]].annotation)
    return len(path) == 1 or not inner or any(_has(candidate, path[1:]) for candidate in inner)


def _sections() -> dict[str, str]:
    """The module of each top-level option, in the order in which RecipeOptions lists its groups."""
    groups = [group for group in RecipeOptions.__mro__ if issubclass(group, Group) and group is not Group]
    return {
        name: group.__module__ for group in groups for name in vars(group).get("__annotations__", {}) if name in RecipeOptions.model_fields
    }


def title(section: str) -> str:
    """What a module of options is about: the first line of its docstring."""
    return (sys.modules[section].__doc__ or section).strip().splitlines()[0]


def find(name: str) -> list[Option]:
    """Options by dotted place, or by name at any depth."""
    options = catalogue()
    if name in options:
        return [options[name]]
    return [option for option in options.values() if option.name == name]


def count_by_status() -> dict[str, int]:
    """How many options have each status; `not yet` apart from what is refused for good."""
    counts: dict[str, int] = {"works": 0, "needs": 0, "renamed": 0, "refused": 0, "not yet": 0}
    for option in catalogue().values():
        counts["not yet" if option.facts.not_yet else option.facts.status] += 1
    return counts


def status_words(option: Option) -> str:
    """The status as the reference and `explain` tell it."""
    facts = option.facts
    words: dict[Status, str] = {
        "works": "works",
        "needs": f"needs {facts.note}",
        "renamed": f"renamed: write `{facts.note}`",
        "refused": f"refused: {facts.note}",
    }
    if facts.not_yet:
        prepared = ": rows are prepared for it, and not trained" if facts.prepared else ""
        return f"not yet supported (will need {facts.note})" if facts.note else f"not yet supported{prepared}"
    return words[facts.status]

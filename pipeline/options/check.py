"""`regrow check [FILE] [--resolved]`: what is wrong with a file, and what every option comes to be."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pipeline.options.catalogue import in_order
from pipeline.options.defaults import Decided, decisions
from pipeline.options.hardware import Machine, this_machine
from pipeline.options.reading.problems import dotted, show
from pipeline.options.reading.source import Place
from pipeline.options.recipe import Recipe, load_recipe
from pipeline.options.schema import OptionFacts, facts_of


def check(path: Path, *, resolved: bool = False, machine: Machine | None = None) -> str:
    """What `regrow check` prints for a file without problems: warnings, needs, and with ``resolved`` every value.

    Raises:
        RegrowError: the file has problems; all of them are in the message.
    """
    recipe, machine = load_recipe(path), machine or this_machine()
    lines = [f"warning: {warning}" for warning in recipe.warnings]
    lines += [f"note: {note}" for note in unmet_needs(recipe, machine)]
    if resolved:
        lines += [f"{item.key}: {show(item.value)}  # {item.reason}" for item in resolve(recipe, machine)]
    return "\n".join([*lines, f"{path}: no problems."])


def unmet_needs(recipe: Recipe, machine: Machine) -> list[str]:
    """Options in use that need something which is not here. The stage may run elsewhere, so these are notes."""
    return [
        f"{recipe.source.name}:{recipe.source.line(path)}: {dotted(path)}: {show(value)} needs {what}"
        for path, field, value in _values(recipe.options, ())
        for what in _lacking(facts_of(field), value, field.default, machine)
    ]


def _lacking(facts: OptionFacts, value: Any, default: Any, machine: Machine) -> Iterator[str]:
    if facts.status == "needs" and "GPU" in facts.note and not machine.gpu and value not in (None, False, default):
        yield f"{facts.note}, and there is none here"
    for pattern, package, extra in facts.extras:
        values = value if isinstance(value, list) else [value]
        if value is not None and any(fnmatch(str(item), pattern) for item in values) and not machine.has_package(package):
            yield f"the package {package}, which is not installed here: pip install 'regrow[{extra}]'"


def resolve(recipe: Recipe, machine: Machine) -> list[Decided]:
    """Every option that stages read, with its value and why it has it, in the order of the schema."""
    decided = decisions(recipe.options, machine)
    found = [_resolved(recipe, decided, path, value) for path, _, value in _values(recipe.options, ())]
    return list({item.key: item for item in found}.values())


def _resolved(recipe: Recipe, decided: dict[str, Decided], path: Place, value: Any) -> Decided:
    key = dotted(path)
    if key in decided:
        return decided[key]
    if (left_out := decided.get(str(path[0]))) is not None and left_out.value == []:
        return left_out
    if path in recipe.source.lines:
        return Decided(key, value, f"{recipe.source.name}:{recipe.source.lines[path]}")
    return Decided(key, value, "default" if value is not None else "not set")


def _values(group: BaseModel, path: Place) -> Iterator[tuple[Place, FieldInfo, Any]]:
    """Options that work, nested ones by themselves."""
    fields = type(group).model_fields
    for name in fields if path else in_order():
        field, value = fields[name], getattr(group, name)
        if not facts_of(field).works:
            continue
        if isinstance(value, BaseModel):
            yield from _values(value, (*path, name))
        elif isinstance(value, list) and value and isinstance(value[0], BaseModel):
            for index, item in enumerate(value):
                yield from _values(item, (*path, name, index))
        else:
            yield (*path, name), field, "(not shown)" if value and facts_of(field).secret else value

"""What the statuses of options say about a file: options and values that are refused, or not supported yet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pipeline.options.reading.problems import Problem
from pipeline.options.reading.source import Place
from pipeline.options.reading.wording import admits_bool, models_in, words_of
from pipeline.options.schema import OptionFacts, facts_of


def status_problems(model: type[BaseModel], values: dict[Any, Any], path: Place = ()) -> Iterator[Problem]:
    """Every option of ``values`` that asks for something regrow does not do. ``values`` are in normal form."""
    for key, value in values.items():
        field = model.model_fields.get(key)
        if field is not None:
            yield from _judge(field, value, (*path, key))


def _judge(field: FieldInfo, value: Any, path: Place) -> Iterator[Problem]:
    facts = facts_of(field)
    if facts.status == "refused":
        if not asks_for_nothing(field, value):
            yield Problem(path, "(not shown)" if facts.secret else value, *_refusal(facts, str(path[-1]), value))
        return
    for place, item in [(path, value), *(((*path, index), item) for index, item in enumerate(value if isinstance(value, list) else []))]:
        if (gone := facts.why_gone(item)) is not None:
            yield Problem(place, item, f"refused: {gone[0]}", gone[1], breaks_model=True)
    if facts.is_later(value):
        yield Problem(path, value, "not yet supported", f"what works: {words_of(field.annotation)}", breaks_model=True)
    for index, item in enumerate(value) if isinstance(value, list) else [(None, value)]:
        for inner in models_in(field.annotation)[:1]:
            if isinstance(item, dict) and _works_in_part(inner):
                yield from status_problems(inner, item, path if index is None else (*path, index))


def _works_in_part(model: type[BaseModel]) -> bool:
    """Where nothing inside works, the key that holds it is refused as a whole."""
    return any(facts_of(field).is_read for field in model.model_fields.values())


def asks_for_nothing(field: FieldInfo, value: Any) -> bool:
    """Whether a refused option has a value that changes nothing: its default, or one that means the same."""
    return any(_same(value, idle) for idle in (None, field.default, *idle_values(field)))


def idle_values(field: FieldInfo) -> tuple[Any, ...]:
    """Values besides the default that ask for nothing."""
    idle = facts_of(field).idle
    if idle is None:
        return (False,) if admits_bool(field.annotation) and field.default is None else ()
    return idle


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    return bool(left == right)


def _refusal(facts: OptionFacts, key: str, value: Any) -> tuple[str, str]:
    if not facts.not_yet:
        return f"refused: {facts.note}", facts.instead or "remove it"
    return "not yet supported", f"remove it, or write `{key}: false`" if value is True and facts.idle is None else "remove it"
